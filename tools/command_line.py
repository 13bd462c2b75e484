"""Functions as commands: their options, their help, and errors in one sentence."""

import ast
import inspect
import io
import math
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial, wraps
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from types import UnionType
from typing import Any, get_args

import fire
from fire.core import FireExit
from fire.decorators import SetParseFns
from tumour.errors import OptionError, as_sentence, nearest, printable, show, traceback_switch

HELP = (["--help"], ["-h"])
WIDTH = 110  # characters of a line of help


def command_line(component: Any, name: str, words: Sequence[str] | None = None) -> None:
    """Run a function, or one of several functions by name, as a command.

    What the user can fix is printed as one sentence. A function returns what is printed, or the exit status.

    Args:
        component: the function, its place as "module:function", or a dict of these by name.
        name: how the command is called, as `python -m tools score`.
        words: the command line; default: that of this process.
    """
    with_traceback, words = traceback_switch(sys.argv[1:] if words is None else words)
    try:
        component, name, words = chosen(component, name, words)
        if words in HELP or isinstance(component, Mapping):
            print(help_of(component, name))
            return
        call = call_of(component, name, words)
        require_filled(call)
        result = call()
    except (Exception, KeyboardInterrupt) as error:
        sentence = as_sentence(error)
        if sentence is None:
            raise
        show(sentence, error if with_traceback else None)
        sys.exit(sentence.status)
    if isinstance(result, int):
        sys.exit(result)
    if result is not None:
        print(printable(result))


def chosen(component: Any, name: str, words: list[str]) -> tuple[Any, str, list[str]]:
    """The component that the first words name, how it is called, and the words after these.

    Raises:
        OptionError: there is none of this name.
    """
    if isinstance(component, str):
        component = resolve_name(component)
    if not isinstance(component, Mapping) or not words or words in HELP:
        return component, name, words
    if words[0] not in component:
        raise OptionError(f"There is no command {words[0]}{nearest(words[0], component)}; {name} --help lists all.")
    return chosen(component[words[0]], f"{name} {words[0]}", words[1:])


def help_of(component: Any, name: str) -> str:
    """What a command does, an example, and the meaning and default of each option; or the commands in a dict."""
    if isinstance(component, Mapping):
        lines = {each: summary(part) for each, part in component.items()}
        return f"{name} COMMAND ...; {name} COMMAND --help explains one\n\n{columns(lines)}"
    example = [line for line in str(sys.modules[component.__module__].__doc__).splitlines() if line.startswith(name)]
    options = {}
    for key, parameter in inspect.signature(component).parameters.items():
        meaning = meanings(component).get(key, "").rstrip(".")
        if parameter.kind == parameter.VAR_KEYWORD:
            options["all others"] = meaning
            continue
        if parameter.default is parameter.empty:
            meaning += " (required)"
        elif parameter.default not in (None, "") and "default: " not in meaning:
            meaning += f" (default: {parameter.default})"
        options[f"--{key}"] = meaning
    about = str(inspect.getdoc(component)).partition("\n\nArgs:")[0]
    return "\n\n".join(part for part in (about, "\n".join(example), columns(options)) if part)


def summary(component: Any) -> str:
    """The first line of the docstring of a function, or of a module that need not be imported for it."""
    if not isinstance(component, str):
        return str(inspect.getdoc(component)).partition("\n")[0]
    spec = find_spec(component.partition(":")[0])
    assert spec and spec.origin
    return str(ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))).partition("\n")[0]


def meanings(function: Callable) -> dict[str, str]:
    """What the docstring of a function says about each of its arguments."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n(?=    ))+)", str(inspect.getdoc(function)), re.MULTILINE)
    entries = re.split(r"^(?=\w)", textwrap.dedent(section[1]), flags=re.MULTILINE) if section else []
    parts = [entry.partition(": ") for entry in entries if entry]
    return {name: " ".join(meaning.split()) for names, _, meaning in parts for name in names.split(", ")}


def columns(lines: Mapping[str, str]) -> str:
    """Names and their texts, side by side."""
    left = max(map(len, lines), default=0) + 4
    wrapped = {name: textwrap.wrap(text, WIDTH - left) or [""] for name, text in lines.items()}
    texts = [f"{name:<{left - 2}}" + ("\n" + " " * left).join(text) for name, text in wrapped.items()]
    return textwrap.indent("\n".join(texts), "  ", lambda line: not line.startswith(" "))


def call_of(function: Callable, name: str, words: Sequence[str]) -> partial:
    """The call that a command line asks for.

    Fire calls a function first and complains of other arguments afterwards, so it is given one that does nothing.
    Text stays as it is typed: fire would take a folder called 2021 for a number.

    Raises:
        OptionError: an argument is missing, unknown, has no value or is not the number that it should be.
    """
    calls: list[partial] = []
    parameters = inspect.signature(function).parameters

    @wraps(function)
    def stand_in(*args: Any, **options: Any) -> None:
        calls.append(partial(function, *args, **options))

    text = {key: str for key, each in parameters.items() if each.annotation in (str, "str")}
    flags = [word[2:].split("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    unknown = [flag for flag in flags if flag not in parameters]
    if unknown and all(each.kind != each.VAR_KEYWORD for each in parameters.values()):  # fire reads --nox as x = False
        close = nearest(unknown[0], parameters)
        raise OptionError(f"There is no option --{unknown[0]}{close}; {name} --help lists all.")
    try:
        with redirect_stderr(io.StringIO()):
            fire.Fire(SetParseFns(**text)(stand_in), command=list(words), name=name)
    except FireExit as stop:
        fault = stop.trace.elements[-1].ErrorAsStr() if stop.code else "This command line cannot be understood"
        raise OptionError(f"{fault}; {name} --help lists all.") from stop
    for word, following in pairwise([*words, "--"]):
        key = word.removeprefix("--").replace("-", "_")
        if word.startswith("--") and following.startswith("--") and key in text:
            raise OptionError(f"{word} has no value.")
    require_numbers(calls[0])
    return calls[0]


def words_of(text: str, setting: str) -> list[str]:
    """The folders that an option lists, separated by blanks; quotation marks keep those of a name together."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise OptionError(f"--{setting} is {text}, where a quotation mark is not closed; close it.") from error


def require_filled(call: partial) -> None:
    """Refuse empty text, as of a variable that is not set, unless it is the default: it would be the folder here."""
    signature = inspect.signature(call.func)
    for name, value in signature.bind(*call.args, **call.keywords).arguments.items():
        if value == "" and signature.parameters[name].default != "":
            what = meanings(call.func).get(name, "").rstrip(".")
            raise OptionError(f"--{name} is empty; it must be: {what}.")


def require_numbers(call: partial) -> None:
    """Refuse text for an option that must be a number, and a number below 0."""
    signature = inspect.signature(call.func)
    for name, value in signature.bind(*call.args, **call.keywords).arguments.items():
        annotation = signature.parameters[name].annotation
        kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
        if value is None and type(None) in kinds or not {*kinds} <= {int, float, type(None)}:
            continue
        what, types = ("a whole number", int) if int in kinds else ("a number", (int, float))
        if not isinstance(value, types) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise OptionError(f"--{name} must be {what} of 0 or more; it is {value!r}.")
