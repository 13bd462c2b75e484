"""The options of a run: names that the bundle knows and values in their ranges, checked before any work.

MONAI takes an option that nothing uses without a word, and hands any value on.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS, merge_kv
from tumour.errors import (
    OFF,
    ON,
    InputError,
    OptionError,
    first_cause,
    input_error_in,
    nearest,
    require_text,
    tell_errors_plainly,
)
from tumour.maps.aftertreatment import SHAPE as TREATMENT_SHAPE
from tumour.records import read_json
from tumour.runs.layers import (
    OPTIONS,
    WORKFLOWS,
    bundle_files,
    content_of,
    layers,
    merge,
    parse_options,
    run_id_of,
    started_by_monai,
    typed_options,
    words,
)

SWITCHES = dict.fromkeys(ON, True) | dict.fromkeys(OFF, False)
MONAI_IDS = ("initialize", "run", "finalize", "imports")  # a config may lack them
_checked: list[str] | None = None  # the command line that was found to be right
TYPES = {"integer": (int,), "number": (int, float), "name": (str,)}


def switch(value: Any) -> bool:
    """A setting that is on or off, in any of the usual spellings."""
    if str(value).lower() not in SWITCHES:
        raise OptionError(f"'{value}' is neither true nor false.")
    return SWITCHES[str(value).lower()]


def check_options() -> None:
    """Refuse a wrong command line of `monai.bundle run`; Python code that uses the config is not affected.

    The workflow and the config call this, because either may be another; a command line is checked once.

    Raises:
        OptionError: an option is no id of the config, or a setting is out of its range.
    """
    global _checked
    if started_by_monai() and sys.argv[1:2] == ["run"] and sys.argv is not _checked:
        tell_errors_plainly(fault_of_command)
        check_command(sys.argv[1:])
        _checked = sys.argv


def fault_of_command() -> InputError | None:
    """What is wrong with the command line of this process, if anything."""
    try:
        check_command(sys.argv[1:])
    except InputError as error:
        return error
    return None


def check_command(command: Sequence[str]) -> None:
    """Refuse a wrong command line, given as the arguments of `python -m monai.bundle`."""
    check_settings(known_options(command), typed_options(command))


def known_options(command: Sequence[str]) -> ConfigParser:
    """The merged config of a command line, unresolved.

    Raises:
        OptionError: an option or a key of a config file on top of the bundle's own is no id of the config.
    """
    options = parse_options(command)
    for name, value in options.items():
        if value is None:
            folder = "; for a folder of this name write ./None" if typed_options(command)[name] == "None" else ""
            raise OptionError(f"--{name} None means no value to MONAI, which takes the default; leave it out{folder}.")
        if name.startswith("+") and name[1:] not in OPTIONS:
            add = f"write {name} into a file, and give that by --+config_file"
            raise OptionError(f"--{name} would replace {name[1:]}, because MONAI only extends in files; {add}.")
    files, settings = layers(options)
    own = bundle_files(files)
    parser = merge(own, {})
    if "tracking" in options:
        parser.update({name: value for name, value in tracking(options["tracking"]).items() if name not in parser})
    for file in files[len(own) :]:
        content = content_of(file)
        if Path(file).parent == Path(own[-1]).parent:  # of a release: recipes fit all its workflows
            require_known(content, Path(file))
            for key, value in content.items():
                merge_kv(parser, key, value)
        else:
            lay(parser, content, f"'{file}': ", words(command)[1:2])
    lay(parser, settings, "")
    check_after_treatment({key: value for key, value in settings.items() if key.startswith("after_treatment")})
    check_run_id(parser, words(command)[1:], run_id_of(command))
    return parser


def require_known(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a key of a file of a release that none of the workflows next to it has."""
    known = {
        name for workflow in WORKFLOWS for each in path.parent.glob(f"{workflow}.*") for name in content_of(str(each))
    }
    used = {name.split("::")[0] for name in ReferenceResolver.find_refs_in_config(content, "")}
    for key in content:
        name = re.split("::|#", key.removeprefix("+"))[0]
        if name not in known | used and name not in MONAI_IDS:
            raise OptionError(f"'{path}': There is no option '{name}'{nearest(name, known)}.")


def require_classes(content: Any, source: str) -> None:
    """Refuse a `_target_` that names no class or function, which might end a run after hours of work."""
    if isinstance(content, Mapping):
        target = content.get("_target_")
        if isinstance(target, str) and locate(str(ConfigComponent(dict(content)).resolve_module_name())) is None:
            raise OptionError(f"{source}there is no class or function '{target}'; correct the _target_.")
    inner = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else ()
    for each in inner:
        require_classes(each, source)


def check_after_treatment(given: Any) -> None:
    """Refuse a file with more than numbers in it: it is next to weights, and MONAI would run its text."""
    for each in given.values() if isinstance(given, Mapping) else ():
        check_after_treatment(each)
    if isinstance(given, str) and (file := re.fullmatch("%(.*?[.]json)((::|#).*)?", given)):  # or a part of it
        read_json(Path(file[1]), TREATMENT_SHAPE)


def tracking(given: Any) -> dict[str, Any]:
    """The settings that experiment tracking adds to a config: those of MONAI, or of a file or mapping."""
    if isinstance(given, str):
        given = DEFAULT_EXP_MGMT_SETTINGS.get(given) or content_of(given)
    if "MLFlowHandler" in str(given) and not find_spec("mlflow"):
        install = "run `make setup EXTRA=tracking`, or `pip install mlflow-skinny sqlalchemy alembic` for a release"
        raise OptionError(f"--tracking needs MLflow, which is not installed; {install}.")
    if not all(isinstance(given.get(part), Mapping) for part in ("configs", "handlers_id")):
        raise OptionError("tracking must have the parts configs and handlers_id, as bundles/common/mlflow.yaml.")
    return {name: value for name, value in given["configs"].items() if name not in given["handlers_id"]}


def check_run_id(parser: ConfigParser, extra: Sequence[str], run_id: str) -> None:
    """Refuse a run id that the config lacks, and words that belong to no option."""
    if len(extra) > 1:
        raise OptionError(f"'{extra[1]}' belongs to no option; write a list in quotes, as \"[96, 96, 96]\".")
    names = [name for name, value in parser.get().items() if name.endswith("ing") and isinstance(value, list)]
    if run_id not in parser:
        raise OptionError(f"The run id must be one of {', '.join(names)}; it is '{run_id}'.")


def lay(parser: ConfigParser, content: Mapping[str, Any], source: str, run_id: Sequence[str] = ()) -> None:
    """Merge ids and values on top of a config, each of which must be known there; `source` begins the message."""
    require_classes(content, source)
    used = {name.split("::")[0] for name in ReferenceResolver.find_refs_in_config(content, "")} | {*run_id}
    for key, value in content.items():
        if key not in used:  # else a new part of the config, to which the others refer
            require_id(parser, key, value, source)
        merge_kv(parser, key, value)
        if key.endswith("_target_"):
            require_classes({"_target_": value}, source)
    for key, value in content.items():
        for name in ReferenceResolver.find_refs_in_config(value, key.removeprefix("+")):
            if name not in parser:
                hint = nearest(name.split("::")[-1], siblings(parser, name))
                raise OptionError(f"{source}{key} refers to '{name}', which the config lacks{hint}.")


def siblings(parser: ConfigParser, name: str) -> list[str]:
    """The names that an id could have had in its place."""
    place = parser.get("::".join(name.split("::")[:-1]), {})
    return list(place) if isinstance(place, Mapping) else []


def require_id(parser: ConfigParser, key: str, value: Any, source: str) -> None:
    """Refuse a key that is no id of the config, and a plain value for what is a part with entries of its own."""
    extends, key = key.startswith("+"), key.removeprefix("+")
    settings = [name for name, _ in rules(parser.get("settings", {}))]
    place, walked = parser.get(), ""
    parts = re.split("::|#", key)
    for n, part in enumerate(parts):
        if isinstance(place, Mapping):
            if part not in place and not walked:
                if key in settings or part in MONAI_IDS:  # of another workflow of a release
                    return
                raise OptionError(f"{source}There is no option '{part}'{nearest(part, [*settings, *place, *OPTIONS])}.")
            if part not in place:
                if n == len(parts) - 1 and (takes(place, part) or walked == "cohorts"):  # a data set of the user's
                    return
                raise OptionError(f"{source}{walked} has no '{part}'{nearest(part, [*place, *arguments(place)])}.")
            place = place[part]
        elif isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise OptionError(f"{source}{walked} has no '{part}'; its entries are 0 to {len(place) - 1}.")
            place = place[int(part)]
        else:
            raise OptionError(f"{source}{walked} is {place!r} and has no '{part}'.")
        walked = f"{walked}::{part}" if walked else part
    if extends and not any(isinstance(place, kind) and isinstance(value, kind) for kind in (Mapping, list)):
        what = "entries by name" if isinstance(place, Mapping) else "a list"
        raise OptionError(f"{source}+{key} must be {what}, as {key} is; it is {value!r}.")
    plain = not isinstance(value, Mapping | list | tuple) and str(value)[:1] not in ("@", "$", "%")
    if place and isinstance(place, Mapping | list) and plain and key not in settings and not extends:
        kind = "list" if isinstance(place, list) else "part with entries of its own"
        raise OptionError(f"{source}{key} is a {kind}, not {value!r}; give one, or refer to one as @{key}.")


def arguments(component: Mapping[str, Any]) -> list[str]:
    """The arguments of the class or function that a part of a config names, and what MONAI itself reads there.

    `**kwargs` of a class go to its parent; the list ends in `**` where any name is taken.
    """
    if "_target_" not in component:
        return []
    target: Any = locate(str(ConfigComponent(dict(component)).resolve_module_name()))
    known = [str(name) for name in ConfigComponent.non_arg_keys]
    for each in inspect.getmro(target) if inspect.isclass(target) else [target]:
        if inspect.isclass(each) and "__init__" not in vars(each):
            continue
        try:
            own = inspect.signature(each.__init__ if inspect.isclass(each) else each).parameters.values()
        except (TypeError, ValueError):  # not found, or written in C
            break
        known += [one.name for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        if all(one.kind != one.VAR_KEYWORD for one in own):
            return known
    return [*known, "**"]


def takes(component: Mapping[str, Any], name: str) -> bool:
    """Whether a part of a config may have one more entry."""
    known = arguments(component)
    return not component or name in known or "**" in known


def rules(settings: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The id of each setting with its rule, from settings.yaml."""
    for name, rule in settings.items():
        if isinstance(rule.get("type"), str):
            yield within + name, rule
        else:
            yield from rules(rule, f"{within}{name}::")


def check_settings(parser: ConfigParser, as_typed: Mapping[str, str]) -> None:
    """Refuse a setting that is not of its type or out of its range.

    Args:
        parser: the merged config, with its `settings`.
        as_typed: the options as they were typed, by name.
    """
    try:
        parser.resolve_macro_and_relative_ids()
    except Exception as error:
        why, files = str(error).split("\n")[0], [name for name, word in as_typed.items() if word.startswith("%")]
        raise OptionError(f"{' or '.join(files) or 'A value with %'} refers to no file of settings ({why}).") from error
    for name, rule in rules(parser.get("settings", {})):
        if name.split("::")[0] not in parser:  # it belongs to another workflow
            continue
        if name not in parser:
            raise OptionError(f"{name} is missing; set {name}, not all of {name.split('::')[0]}.")
        value = parser[name] if rule["type"] == "reference" else resolved(parser, name)
        if "below" in rule:
            rule = {**rule, "max": resolved(parser, rule["below"]) - 1}
        if rule["type"] == "path":
            check_path(name, value, as_typed.get(name), rule.get("or") == "")
        elif not fits(value, rule):
            raise OptionError(f"{name} must be {wanted(rule)}; it is {value!r}.")
        elif rule["type"] == "device":
            check_device(value)
        elif value and "without" in rule:
            check_use(parser, name, value, rule["without"])
        elif "by" in rule:
            resolved(parser, rule["by"])
        elif "only_for" in rule:
            check_loss(parser, rule["only_for"])


def resolved(parser: ConfigParser, name: str) -> Any:
    """The value of a setting, or an InputError where its expression fails."""
    try:
        return parser.get_parsed_content(name)
    except Exception as error:
        fault = OptionError(f"{name} cannot be worked out from {parser[name]!r}: {first_cause(error)}.")
        raise input_error_in(error) or fault from error


def fits(value: Any, rule: Mapping[str, Any]) -> bool:
    """Whether a value is of the type and in the range of its rule."""
    kind = rule["type"]
    if isinstance(value, str) and value == rule.get("or"):
        return True
    if kind == "switch":
        return str(value).lower() in SWITCHES
    if kind == "reference":
        return isinstance(value, Mapping) or str(value)[:1] in ("@", "$", "%")
    if kind == "device":
        return isinstance(value, torch.device) or re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", str(value)) is not None
    if kind == "numbers by region":
        return isinstance(value, Mapping) and all(fits(v, {**rule, "type": "number"}) for v in value.values())
    if kind.startswith("list of "):
        one = {**rule, "type": kind.removeprefix("list of ").rstrip("s")}
        once = kind != "list of names" or isinstance(value, list | tuple) and 0 < len(value) == len({*map(str, value)})
        counted = isinstance(value, list | tuple) and len(value) == rule.get("length", len(value))
        return counted and once and all(fits(v, one) for v in value)
    if isinstance(value, bool) or not isinstance(value, TYPES[kind]):
        return False
    low, high, choices = (rule.get(key) for key in ("min", "max", "choices"))
    return (low is None or value >= low) and (high is None or value <= high) and (choices is None or value in choices)


def wanted(rule: Mapping[str, Any]) -> str:
    """What a setting must be, in words."""
    kind, length = rule["type"], rule.get("length")
    text = {
        "switch": "true or false",
        "device": "cpu, cuda, cuda:1, mps or xpu",
        "reference": "a part of the config, as @losses::dice or @heads::classes",
        "list of names": 'a list without repetitions, as "[T1, FLAIR]"',
        "numbers by region": 'numbers by region, as "{ET: 0.4}", each',
    }.get(kind, f"a {kind}".replace("a i", "an i"))
    text = text.replace("list of", f"list of {length}") if length else text
    if choices := rule.get("choices"):
        return f"one of {', '.join(map(str, choices))}"
    low, high = rule.get("min"), rule.get("max")
    if low is not None:
        text += f" from {low:g} to {high:.10g}" if high is not None else f" of {low:g} or more"
    return f"{text} or {rule['or']}" if "or" in rule else text


def check_device(value: Any) -> None:
    """Refuse a device that PyTorch does not find."""
    device = torch.device(value)
    found = torch.get_device_module(device).device_count()
    if (device.index or 0) >= found:
        there = f"{found} such device{'s' * (found != 1)}"
        raise OptionError(f"device is {value}, but PyTorch finds {there}; take --device cpu.")


def check_use(parser: ConfigParser, name: str, value: Any, without: Mapping[str, Any]) -> None:
    """Refuse a setting that has no effect with the value of another one."""
    for other, useless in without.items():
        if resolved(parser, other) == useless:
            raise OptionError(f"{name} is {value}, which has no effect with {other} {useless}; leave --{name} out.")


def check_loss(parser: ConfigParser, only_for: Mapping[str, Sequence[str]]) -> None:
    """Refuse a loss that is made for another head, and channel weights that it does not use."""
    loss, activation = str(parser["loss"]), resolved(parser, "head")["activation"]
    for other, names in only_for.items():
        if loss.removeprefix("@losses::") in names and other != activation:
            raise OptionError(
                f"{loss} is a loss for {other}, and the head has {activation}; choose another loss or --head."
            )
    if resolved(parser, "channel_weights") and "@class_weights" not in str(parser.get(loss[1:], loss)):
        raise OptionError(
            "channel_weights has no effect on this loss; choose one with weights, as @losses::weighted_dice."
        )


def check_path(name: str, value: Any, word: str | None, may_be_empty: bool = False) -> None:
    """Refuse a path that MONAI would change: fire takes words for numbers or lists, MONAI takes # for ::.

    Args:
        name: the setting.
        value: what has become of it.
        word: what was typed; None if it was not.
        may_be_empty: whether the empty path is none; elsewhere `/segmentations` would be made of it.
    """
    if value == "" and not may_be_empty:
        raise OptionError(f"{name} is empty; give a path, or leave --{name} out.")
    if word is not None and word[:1] in ("$", "@", "%"):
        word = None
    path = str(value) if word is None else word
    require_text(name, path)
    if "#" in path:
        raise OptionError(f"{name} is '{path}', and MONAI reads # as ::; rename the folder or use a link without #.")
    if path.startswith("~"):
        raise OptionError(f"{name} is '{path}', and ~ stays as it is here; write '{Path(path).expanduser()}'.")
    if not isinstance(value, str) or path != value:
        missing = " (if no value is missing)" if value is True else ""
        raise OptionError(f"{name} is read as {value!r}, not as a path; write './{path}'{missing}.")
