"""Errors that the user can fix, printed as one sentence instead of a traceback."""

import inspect
import io
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr
from difflib import get_close_matches
from functools import partial, wraps
from itertools import pairwise
from types import TracebackType
from typing import Any

import fire
from fire.core import FireExit
from fire.decorators import SetParseFns


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


def command_line(component: Any, name: str) -> None:
    """Run a function, or a dict of functions by name, as a command.

    An InputError is printed as one line, and the process exits with status 2. A function returns what is
    printed, or the exit status.
    """
    try:
        call = call_of(component, name)
        result = call() if call else None
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if isinstance(result, int):
        sys.exit(result)
    if result is not None:
        print(result)


def call_of(component: Any, name: str) -> Callable[[], Any] | None:
    """The call that the command line of this process asks for; None if it asks for help.

    Fire calls a function first and complains of other arguments afterwards, so it is given functions that do nothing.
    Text stays as it is typed: fire would take a folder called 2021 for a number.

    Raises:
        InputError: an argument is missing, unknown or has no value.
    """
    calls: list[Callable[[], Any]] = []
    parameters: dict[str, inspect.Parameter] = {}

    def stand_in(function: Callable) -> Callable:
        @wraps(function)
        def note(*args: Any, **options: Any) -> None:
            calls.append(partial(function, *args, **options))

        own = inspect.signature(function).parameters
        parameters.update(own)
        return SetParseFns(**{key: str for key, each in own.items() if each.annotation in (str, "str")})(note)

    several = isinstance(component, Mapping)
    stand_ins = {key: stand_in(each) for key, each in component.items()} if several else stand_in(component)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            fire.Fire(stand_ins, name=name)
    except FireExit as stop:
        if not stop.code:
            print(said.getvalue(), file=sys.stderr)
            return None
        fault = stop.trace.elements[-1].ErrorAsStr()
        names = parameters if calls or not several else component
        flags = [word[2:].split("=")[0].replace("-", "_") for word in sys.argv[1:] if word.startswith("--")]
        unknown = [flag for flag in flags if flag not in parameters]
        if unknown and all(each.kind != each.VAR_KEYWORD for each in parameters.values()):
            raise InputError(
                f"There is no option --{unknown[0]}{nearest(unknown[0], names)}; --help lists all."
            ) from stop
        close = nearest(fault.rsplit(" ", 1)[-1], names) if "consume" in fault or "Cannot find key" in fault else ""
        raise InputError(f"{fault}{close}; --help lists all.") from stop
    for word, following in pairwise([*sys.argv[1:], "--"]):
        key = word.removeprefix("--").replace("-", "_")
        if word.startswith("--") and following.startswith("--") and key in parameters:
            if parameters[key].annotation in (str, "str"):
                raise InputError(f"{word} has no value.")
    return calls[0] if calls else None


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
