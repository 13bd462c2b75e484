"""An interpreter that cannot import from this repository, started once for all commands of a test process.

Importing MONAI takes longer than a tiny run, so each command runs in a fork of a process that has imported it and
nothing else. `tools.release.verify` starts Python for each of its checks: tests give it `run` in place of `subprocess`.
"""

import json
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SERVER = """
import json, os, runpy, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what an import prints is no answer
import monai.bundle
for line in sys.stdin:
    command, folder, environment, printed = json.loads(line)
    if process := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=answers, flush=True)
    else:
        break
else:
    sys.exit()
for number, path in enumerate((os.devnull, *printed)):
    os.dup2(os.open(path, os.O_RDWR), number)
os.chdir(folder)
os.environ.clear()
os.environ.update(environment)
sys.path[0] = folder
kind, what, *sys.argv[1:] = command
if kind == "-m":
    runpy.run_module(what, run_name="__main__", alter_sys=True)
else:
    exec(what, {"__name__": "__main__"})
"""


class Interpreter:
    """Runs each `-m MODULE` and `-c CODE` in a copy of a process that has imported MONAI, and nothing else.

    Args:
        python: the interpreter.
    """

    def __init__(self, python):
        self.folder = tempfile.TemporaryDirectory()  # empty, so nothing can be imported from it
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.process = subprocess.Popen([python, "-c", SERVER], cwd=self.folder.name, env=own, **pipes)

    def run(self, command, cwd, env):
        """What `subprocess.run` returns for `python *command`, with its output as text."""
        printed = [Path(self.folder.name, name) for name in ("out", "err")]
        for path in printed:
            path.write_text("")
        request = json.dumps([[*map(str, command)], str(cwd), dict(env), [*map(str, printed)]])
        print(request, file=self.process.stdin, flush=True)
        status = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(command, status, *(path.read_text() for path in printed))


@cache
def interpreter(python):
    """The one of this test process."""
    return Interpreter(str(python))


def run(command, cwd, env, **_):
    """Instead of `subprocess.run`."""
    python, *rest = command
    if rest[0] in ("-c", "-m"):
        return interpreter(python).run(rest, cwd, env)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
