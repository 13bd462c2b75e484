"""Errors that the user can fix, printed as one sentence instead of a traceback.

The exit status is 2 if the command is wrong (an option, its value, a name), and 1 if something else is: a file, the
disk, a GPU. `--traceback` prints the traceback as well. Only an error of this program itself has one without it.
"""

import errno
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import TracebackType
from typing import Any

ELSEWHERE = "or give another folder"
ADVICE = {  # what is wrong with a path, and how to fix it
    errno.ENOSPC: f"the disk is full; free some space, {ELSEWHERE}",
    errno.EDQUOT: f"your quota on this disk is used up; free some space, {ELSEWHERE}",
    errno.EFBIG: f"the file would be larger than is allowed here (ulimit -f); raise the limit, {ELSEWHERE}",
    errno.EACCES: f"you have no permission; change its permissions, {ELSEWHERE}",
    errno.EPERM: f"you have no permission; change its permissions, {ELSEWHERE}",
    errno.EROFS: f"its disk is read-only; mount it for writing, {ELSEWHERE}",
    errno.EIO: f"its disk has an error; check the disk, {ELSEWHERE}",
    errno.ENOTDIR: "a part of this path is a file, not a folder; remove that file, or give another path",
    errno.EEXIST: "it is a file, not a folder; remove it, or give another path",
    errno.EISDIR: "it is a folder, not a file; remove it, or give another path",
    errno.ENOENT: "it does not exist; check the path",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
    errno.ELOOP: "it is a link to itself; remove it, or give another path",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; end other programs",
}
ON, OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
OF_THE_GPU = ("CUDA", "cuDNN", "CUBLAS", "CUFFT", "NCCL", "HIP error", "MPS backend")  # in messages of PyTorch
LESS = "give less to do at a time: a smaller batch_size, patch_size or window, or fewer workers"


class InputError(ValueError):
    """A case, file or setting is wrong; the message names it and says how to fix it."""

    status = 1


class OptionError(InputError):
    """The command is wrong: an option, its value, or the name of something."""

    status = 2


class Stopped(InputError):
    """The user stopped the program."""

    status = 130


class CaseError(InputError):
    """One case cannot be used; others may well be."""


def one_of(options: Mapping[str, Any], name: str, setting: str, hints: Mapping[str, str] | None = None) -> Any:
    """Look up the option called `name`.

    Args:
        options: the values by name.
        name: the name to look up.
        setting: the name of the setting, for the message.
        hints: advice for names that are not among the options.

    Raises:
        OptionError: there is no such option; the message names the setting and lists its options.
    """
    if name not in options:
        known = (hints or {}).get(str(name).lower())
        close = get_close_matches(str(name), map(str, options), n=1, cutoff=0.7)
        hint = f"; {known}" if known else nearest(str(name), map(str, options)) if close else ""
        raise OptionError(f"{setting} must be one of {', '.join(options)}; it is '{name}'{hint}.")
    return options[name]


def require_finite(values: Any, case: str) -> None:
    """Raise a CaseError if any number of a tensor that a network predicts for a case is NaN or infinite."""
    if not math.isfinite(values.sum()):  # the sum is finite only if all numbers are
        raise CaseError(
            f"{case}: the network's output is not finite; check the intensities of its scans, and if other cases "
            "fail too, use another model.pt or train again."
        )


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence on an unknown name: what was probably meant, also by its initials (lr, learning_rate)."""
    known = [each for each in dict.fromkeys(names) if each.isidentifier() and not each.startswith("_")]

    def initials(text: str) -> str:
        return "".join(word[:1] for word in text.split("_"))

    short = [each for each in known if initials(each) == name.lower() or (len(each) > 1 and initials(name) == each)]
    similar = get_close_matches(name.lower(), known, 1, 0.6)
    close = short or [each for each in similar if re.findall(r"\d", each) == re.findall(r"\d", name)]
    close = close or [each for each in known if each.startswith(f"{name.lower()}_")]  # brats2023: brats2023_gli
    close = close or similar or get_close_matches(name.lower(), known, 3, 0.0)
    return f"; the nearest is {' or '.join(close)}" if close else ""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from or during, the last first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def input_error_in(error: BaseException | None) -> InputError | None:
    """The InputError behind an exception: itself or one of its causes, as MONAI wraps errors; None if there is none."""
    return next((each for each in causes(error) if isinstance(each, InputError)), None)


def first_cause(error: BaseException) -> BaseException:
    """The error that an exception was raised from, however often it was wrapped."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def reason(error: BaseException) -> str:
    """Why a case failed that looked usable, without a full stop."""
    if known := input_error_in(error):
        return str(known).rstrip(".")
    error = first_cause(error)
    return too_large(error) or f"could not be used ({type(error).__name__}: {error}); check its files"


def too_large(error: BaseException) -> str | None:
    """The fault and its fix if an error means too little memory, also of a GPU or a loader's worker; else None."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return f"does not fit into the memory of the GPU; end other programs there, give --device cpu, or {LESS}"
    if isinstance(error, MemoryError) or "DataLoader worker" in text and "killed" in text:
        return f"does not fit into the memory of this machine; end other programs there, or {LESS}"
    return None


def of_the_system(error: OSError, path: str | os.PathLike | None = None) -> InputError:
    """What the operating system reports, as a sentence with the path and how to fix it."""
    shown = error.filename if path is None else os.fspath(path)
    why = ADVICE.get(error.errno or 0, error.strerror or str(error))
    if not shown and error.errno == errno.ENOENT:  # of tempfile, which lists the folders that it tried
        why = f"{error.strerror}; let this user write to one of them, or set TMPDIR to a folder"
    if error.errno == errno.EEXIST and os.path.islink(shown) and not os.path.exists(shown):
        why = f"it is a link to '{os.readlink(shown)}', which does not exist; restore or remove it"
    return InputError(printable(f"'{os.fsdecode(shown)}': {why}." if shown else f"{why[:1].upper()}{why[1:]}."))


def as_sentence(error: BaseException) -> InputError | None:
    """The sentence for an error that the user can fix; None for what can only be an error of this program."""
    if isinstance(error, KeyboardInterrupt):
        return Stopped("stopped; run the same command again to continue.")
    if known := input_error_in(error):
        return known
    for each in causes(error):
        text, kind = str(each), type(each).__name__
        line = next(iter(text.strip().splitlines()), kind).rstrip(".")
        if isinstance(each, OSError) and (each.filename or each.errno in ADVICE):
            return of_the_system(each)
        if lacking := too_large(each):
            return InputError(f"This run {lacking}.")
        if isinstance(each, RuntimeError) and any(word in text for word in OF_THE_GPU):
            return InputError(f"The GPU failed ({line}); run the command again, or give --device cpu.")
        if "Cannot locate class or function path" in text:
            return OptionError(f"{line}; correct the _target_ in the config, or install its package.")
        if isinstance(each, ImportError) and not (each.name or "").startswith(("tumour", "tools", "custom_components")):
            return InputError(f"{line}; install the package.")
    return None


def traceback_switch(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether a command line has the switch `--traceback`, and the command line without it."""
    on, rest, before = False, [], ""
    for word in arguments:
        name, _, value = word.partition("=")
        if name == "--traceback":
            on = value.lower() not in OFF
        elif before == "--traceback" and word.lower() in (*ON, *OFF):
            on = word.lower() in ON
        else:
            rest.append(word)
        before = word
    return on, rest


def show(sentence: InputError, error: BaseException | None = None) -> None:
    """Print the sentence of an error, after its traceback if it is given."""
    if error is not None:
        traceback.print_exception(error)
    text = str(sentence)
    text = text.rpartition("Error: ")[2] if "Traceback" in text else text  # a loader's worker puts its own before it
    print(f"error: {printable(text.strip())}", file=sys.stderr)


def printable(value: Any) -> str:
    """Text that every terminal and file takes: bytes of a file name that are not UTF-8 are shown as escapes."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def require_text(setting: str, path: str) -> None:
    """Refuse a path whose bytes are not UTF-8: neither a log nor a table can contain it."""
    if printable(path) != path:
        raise OptionError(f"{setting} is '{printable(path)}', which is not UTF-8; rename it, or give a link to it.")


def tell_errors_plainly(explain: Callable[[], InputError | None] = lambda: None) -> None:
    """Print only one sentence for an error that ends the process, unless it is an error of this program itself.

    Args:
        explain: called for what seems to be one; the sentence if it is not, else None.
    """
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sentence = as_sentence(error) or explain()
        if sentence is None:
            previous(kind, error, trace)
        else:
            print(file=sys.stderr)  # after a progress bar
            show(sentence, error if traceback_switch(sys.argv[1:])[0] else None)
            sys.exit(sentence.status)

    sys.excepthook = hook
