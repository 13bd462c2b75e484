"""Errors that the user can mend, told in one sentence instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from types import TracebackType
from typing import Any

import fire


class InputError(ValueError):
    """A case, file or setting is wrong; the message names it and the mend."""


def one_of(options: Mapping[str, Any], name: str, setting: str, hints: Mapping[str, str] | None = None) -> Any:
    """The option called `name`, or an InputError that lists the options of the setting.

    Args:
        hints: what to do instead, for names that are no option.
    """
    if name not in options:
        nearest = get_close_matches(str(name), map(str, options), n=1, cutoff=0.7)
        hint = (hints or {}).get(str(name).lower()) or "".join(f"the nearest is {each}" for each in nearest)
        hint = hint and f"; {hint}"
        raise InputError(f"{setting} must be one of {', '.join(options)}; it is '{name}'{hint}.")
    return options[name]


def command_line(component: Any, name: str) -> None:
    """Run a function, or several by name, as a command; an InputError becomes one line and the exit status 2."""
    try:
        fire.Fire(component, name=name)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def input_error_in(error: BaseException | None) -> InputError | None:
    """The InputError that an exception is or was caused by, however MONAI wrapped it."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def tell_input_errors_plainly() -> None:
    """From now on a run that dies of an InputError prints its sentence alone; other errors keep their traceback."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = input_error_in(error)
        if cause is None:
            previous(kind, error, trace)
        else:
            print(f"\nerror: {cause}", file=sys.stderr)

    sys.excepthook = hook
