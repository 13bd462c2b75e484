"""Errors that the user can fix, printed as one sentence instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from types import TracebackType
from typing import Any

import fire


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
        nearest = get_close_matches(str(name), map(str, options), n=1, cutoff=0.7)
        hint = (hints or {}).get(str(name).lower()) or "".join(f"the nearest is {each}" for each in nearest)
        hint = hint and f"; {hint}"
        raise InputError(f"{setting} must be one of {', '.join(options)}; it is '{name}'{hint}.")
    return options[name]


def command_line(component: Any, name: str) -> None:
    """Run a function, or a dict of functions by name, as a command.

    An InputError is printed as one line, and the process exits with status 2.
    """
    try:
        fire.Fire(component, name=name)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def input_error_in(error: BaseException | None) -> InputError | None:
    """The InputError behind an exception: itself or one of its causes, as MONAI wraps errors; None if there is none."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
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
