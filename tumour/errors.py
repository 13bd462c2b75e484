"""Errors that the user can fix, printed as one sentence instead of a traceback."""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import TracebackType
from typing import Any


class InputError(ValueError):
    """A case, file or setting is wrong; the message names it and says how to fix it."""


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
        InputError: there is no such option; the message names the setting and lists its options.
    """
    if name not in options:
        close = get_close_matches(str(name), map(str, options), n=1, cutoff=0.7)
        hint = (hints or {}).get(str(name).lower()) or "".join(f"the nearest is {each}" for each in close)
        hint = hint and f"; {hint}"
        raise InputError(f"{setting} must be one of {', '.join(options)}; it is '{name}'{hint}.")
    return options[name]


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence on an unknown name: what was probably meant, also by its initials (lr, learning_rate)."""
    known = [each for each in dict.fromkeys(names) if each.isidentifier() and not each.startswith("_")]

    def initials(text: str) -> str:
        return "".join(word[:1] for word in text.split("_"))

    short = [each for each in known if initials(each) == name.lower() or (len(each) > 1 and initials(name) == each)]
    close = short or get_close_matches(name.lower(), known, 1, 0.6) or get_close_matches(name.lower(), known, 3, 0.0)
    return f"; the nearest is {' or '.join(close)}" if close else ""


def input_error_in(error: BaseException | None) -> InputError | None:
    """The InputError behind an exception: itself or one of its causes, as MONAI wraps errors; None if there is none."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def first_cause(error: BaseException) -> BaseException:
    """The error that an exception was raised from, however often it was wrapped."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def tell_input_errors_plainly() -> None:
    """Print only the message of an InputError that ends the process; other errors keep their traceback."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = input_error_in(error)
        if cause is None:
            previous(kind, error, trace)
        else:
            sentence = str(cause).rpartition("InputError: ")[2]  # a loader's worker puts its traceback before it
            print(f"\nerror: {sentence.strip()}", file=sys.stderr)

    sys.excepthook = hook
