"""What the user can fix is one sentence with the path, and its exit status says whether the command is wrong."""

import errno
import os
import sys

import pytest
import torch
from tumour import errors
from tumour.errors import InputError, OptionError, as_sentence, nearest, printable, traceback_switch

from tools.command_line import command_line


def caused(error, cause):
    """An error as MONAI wraps it."""
    try:
        raise error from cause
    except type(error) as wrapped:
        return wrapped


@pytest.mark.parametrize(
    ("error", "part", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "'a/b': the disk is full", 1),
        (OSError(errno.EDQUOT, "Quota", "a/b"), "quota", 1),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "'a/b': you have no permission", 1),
        (OSError(errno.EROFS, "Read-only", "a/b"), "read-only", 1),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "a part of this path is a file", 1),
        (FileExistsError(errno.EEXIST, "File exists", "a/b"), "it is a file, not a folder", 1),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a/b"), "it is a folder, not a file", 1),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), "does not exist", 1),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 9), "shorter", 1),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n", 1),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full", 1),
        (OSError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "in ['/tmp']; let this user", 1),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory of the GPU", 1),
        (MemoryError(), "memory of this machine", 1),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "memory of this machine", 1),
        (RuntimeError("CUDA error: device-side assert triggered\nmore"), "The GPU failed (CUDA error: device-side", 1),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), "--device cpu", 1),
        (ModuleNotFoundError("Cannot locate class or function path: 'UNett'."), "'UNett'; correct the _target_", 2),
        (ModuleNotFoundError("No module named 'torchio'", name="torchio"), "'torchio'; install", 1),
        (InputError("It is wrong."), "It is wrong.", 1),
        (OptionError("It is wrong."), "It is wrong.", 2),
        (KeyboardInterrupt(), "stopped; run the same command again to continue.", 130),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_user_can_fix_is_one_sentence(error, part, status, wrapped):
    if wrapped and not isinstance(error, KeyboardInterrupt):
        error = caused(RuntimeError("Failed to instantiate component 'x' with keywords: y\n"), error)
    sentence = as_sentence(error)
    assert part in str(sentence) and sentence.status == status
    assert "\n" not in str(sentence) and str(sentence).endswith(".")


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError("x"), TypeError("x"), ModuleNotFoundError("x", name="tumour.x"), RuntimeError("x")],
)
def test_an_error_of_this_program_is_not_hidden(error):
    assert as_sentence(error) is None


def tool(function, *given):
    with pytest.raises(SystemExit) as stop:
        command_line(function, "tool", given)
    return stop.value.code


def fail(kind: str, output: str = "o") -> None:
    raise {"disk": OSError(errno.ENOSPC, "", output), "option": OptionError("No."), "bug": KeyError("bug")}[kind]


@pytest.mark.parametrize(("kind", "status"), [("disk", 1), ("option", 2)])
@pytest.mark.parametrize("switch", [[], ["--traceback"], ["--traceback", "yes"], ["--traceback=off"]])
def test_a_tool_prints_a_traceback_only_if_asked(capsys, kind, status, switch):
    assert tool(fail, "--kind", kind, *switch) == status
    said = capsys.readouterr().err
    assert ("Traceback" in said) == (switch in ([], ["--traceback=off"])) ^ True
    assert said.strip().splitlines()[-1].startswith("error: ")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(KeyError):
        command_line(fail, "tool", ["--kind", "bug"])


def test_the_switch_is_no_value_of_another_option():
    assert traceback_switch(["a", "--traceback", "--output", "no"]) == (True, ["a", "--output", "no"])
    assert traceback_switch(["--traceback", "off", "x"]) == (False, ["x"])
    assert traceback_switch(["--output", "--traceback"]) == (True, ["--output"])


def test_the_hook_asks_for_an_explanation_and_leaves_a_bug_alone(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: seen.append(error[0]))
    monkeypatch.setattr(sys, "argv", ["tool"])
    errors.tell_errors_plainly(lambda: OptionError("There is no option 'x'.") if not seen else None)
    with pytest.raises(SystemExit) as stop:
        sys.excepthook(KeyError, KeyError("x"), None)
    assert stop.value.code == 2 and capsys.readouterr().err == "\nerror: There is no option 'x'.\n"
    seen.append("once")
    sys.excepthook(KeyError, KeyError("x"), None)
    assert seen == ["once", KeyError]


def test_bytes_that_are_no_text_can_be_printed():
    name = os.fsdecode(b"M\xfcller")
    assert printable(name) == "M\\udcfcller" and printable("Müller") == "Müller"
    assert "M\\udcfcller" in str(as_sentence(FileNotFoundError(errno.ENOENT, "", name)))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "learning_rate"),  # its initials
        ("brats2023", "brats2023_gli or brats2023_men"),  # its beginning, though brats2021 has fewer other letters
        ("epoch", "epochs"),
        ("EPOCHS", "epochs"),
    ],
)
def test_the_nearest_name_is_what_was_probably_meant(name, meant):
    names = ["brats2021", "brats2023_gli", "brats2023_men", "epochs", "learning_rate"]
    assert nearest(name, names) == f"; the nearest is {meant}"
