"""There is one way in to the commands; each lists its options, and refuses a wrong one before it works."""

import inspect
import re
import subprocess
import sys
from pkgutil import resolve_name

import pytest

from tests.conftest import ROOT
from tools.__main__ import COMMANDS
from tools.command_line import command_line, help_of

COMPONENTS = {name: resolve_name(place) for name, place in COMMANDS.items()}
FUNCTIONS = {
    f"{name} {part}".strip(): function
    for name, component in COMPONENTS.items()
    for part, function in (component.items() if isinstance(component, dict) else [("", component)])
}


def tool(capsys, *words, component=None):
    """The exit status, standard output and standard error of a command."""
    status = 0
    try:
        command_line(component or COMMANDS, "python -m tools", words)
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def test_the_list_has_a_line_for_every_command_and_loads_none_of_them(monkeypatch):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tools"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = dict(re.findall(r"^  (\w+)  +(\S.*\.)$", done.stdout, re.MULTILINE))
    assert lines.keys() == COMMANDS.keys() and lines["score"].startswith("Score any label maps")
    assert "tools.score" not in done.stderr and "torch" not in done.stderr


def test_another_python_than_that_of_make_setup_is_told_in_one_sentence():
    done = subprocess.run([sys.executable, "-S", "-m", "tools", "score"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(r"error: .*python\S* lacks \w+; run make setup, then source .venv/bin/activate\.$", done.stderr)


def test_no_module_has_a_second_way_in():
    named = [path for path in (ROOT / "tools").rglob("*.py") if "__main__" in path.read_text(encoding="utf-8")]
    assert named == [ROOT / "tools" / "__main__.py"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_help_of_a_command_explains_every_option(name, capsys):
    status, said, _ = tool(capsys, *name.split(), "--help")
    assert status == 0 and max(map(len, said.splitlines())) <= 120
    listed = re.findall(r"^  (--\w+|all others)  +\S", said, re.MULTILINE)  # only with a meaning
    options = inspect.signature(FUNCTIONS[name]).parameters.values()
    assert listed == ["all others" if each.kind == each.VAR_KEYWORD else f"--{each.name}" for each in options]
    for each in options:
        if each.default is each.empty and each.kind != each.VAR_KEYWORD:
            assert re.search(rf"^  --{each.name} [^(]*(\n {{6}}[^(]*)*\(required\)", said, re.MULTILINE)
    command = name.split()[0]
    assert re.search(
        rf"^python -m tools {command}\b", said + help_of(COMPONENTS[command], f"python -m tools {command}"), re.M
    )


def test_the_help_gives_defaults_and_an_example(capsys):
    _, said, _ = tool(capsys, "patients", "-h")
    assert re.search(r"--cases +number of patients \(default: 16\)", said)
    assert "\npython -m tools patients --output DIR" in said and "Returns" not in said


@pytest.mark.parametrize(("word", "meant"), [("scor", "score"), ("chek", "check"), ("releese", "release")])
def test_an_unknown_command_is_answered_with_the_nearest(word, meant, capsys):
    status, _, said = tool(capsys, word, "--output", "x")
    assert (
        status == 2
        and said == f"error: There is no command {word}; the nearest is {meant}; python -m tools --help lists all.\n"
    )
    assert "the nearest is recipes" in tool(capsys, "trials", "recipe")[2]


COMPLETE = ["score", *"--reference r --prediction p --cohort brats2021 --output o --workers 1".split()]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["--mispelt", "3"], "mispelt"),
        (["--predictions", "p"], "prediction"),
        (["--refrence=r"], "reference"),
        (["--challange", "legacy"], "challenge"),
        (["--challenge", "legacy", "extra"], "extra"),
        (["--output"], "--output has no value"),
        (["--output", ""], "--output is empty; it must be: folder for scores.csv"),
        (["--nochallenge"], "--nochallenge; the nearest is challenge"),
        (["--no-workers"], "no_workers; the nearest is workers"),
        (["--workers", "two"], "--workers must be a whole number of 0 or more; it is 'two'"),
        (["--workers", "-1"], "it is -1"),
        (["--workers", "1.5"], "it is 1.5"),
        (["--workers", "True"], "it is True"),
        (["--workers", "1e999"], "a whole number"),
        (["--workers", "[1]"], "a whole number"),
    ],
)
def test_a_misspelt_option_is_refused_before_any_work(monkeypatch, capsys, given, part):
    monkeypatch.setattr("tools.score.cohort_named", lambda name: pytest.fail("it has begun to work"))
    status, _, said = tool(capsys, *COMPLETE, *given)
    assert status == 2 and part in said and said.startswith("error: ") and said.count("\n") == 1


LAST = {name: [*inspect.signature(function).parameters][-1:] for name, function in FUNCTIONS.items()}


@pytest.mark.parametrize("name", [name for name, last in LAST.items() if last not in ([], ["options"])])  # of the runs
def test_every_command_refuses_a_misspelt_option_with_the_nearest(name, capsys):
    (option,) = LAST[name]
    said = tool(capsys, *name.split(), f"--{option}x", "3")[2]
    assert f"There is no option --{option}x; the nearest is {option}" in said and said.count("\n") == 1


def test_a_share_that_is_no_number_is_refused(capsys):
    given = ["datalist", "--cohort", "brats2021", "--dataset_dir", "d"]
    for value in ("nan", "half", "-0.1", "1e999", "[]", "True", "None"):
        said = tool(capsys, *given, "--test_share", value)[2]
        assert "--test_share must be a number of 0 or more" in said and said.count("\n") == 1


def test_a_command_without_a_required_option_says_which(capsys):
    assert "prediction" in tool(capsys, "score", "--reference", "r")[2]
    assert "no option --refrence; the nearest is reference" in tool(capsys, "score", "--refrence", "r")[2]


@pytest.mark.parametrize("folder", ["2021", "1e3", "None", "True", "a#b", "(x)", "a,b", "my data"])
def test_a_folder_may_be_called_what_you_like(capsys, folder):
    def show(output: str, workers: int = 1) -> str:
        return f"{output} {workers}"

    assert tool(capsys, "--output", folder, "--workers", "2", component=show) == (0, f"{folder} 2\n", "")
