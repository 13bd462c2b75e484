"""A release in an empty folder, and an interpreter that cannot import from this repository."""

import os
import zipfile

from tests.interpreter import run
from tools.command import flags
from tools.release.pack import pack
from tools.release.verify import TINY


class Home:
    """An unpacked release, an interpreter, and patients."""

    def __init__(self, bundle, python, scratch, data, weights=None):
        zipfile.ZipFile(pack(bundle, scratch, weights)).extractall(scratch / "home")
        self.folder, self.python, self.data = scratch / "home" / bundle, python, data

    def python_runs(self, *command, cwd=None):
        """Run a command of the interpreter, which must succeed; its output."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = run([self.python, *map(str, command)], cwd or self.folder, environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return done.stdout + done.stderr

    def run(self, run_id, *files, launch=("-m", "monai.bundle"), cwd=None, **settings):
        """Run configs of the release on the command line."""
        paths = [str(self.folder / f"configs/{name}.json") for name in files]
        settings = TINY | {"dataset_dir": self.data, "bundle_root": self.folder} | settings
        return self.python_runs(*launch, "run", *run_id, *flags({"config_file": paths} | settings), cwd=cwd)
