"""The merged config of a command line, and the settings in which it differs from the bundle's config files."""

import copy
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import fire
import yaml
from monai.bundle import ConfigParser
from monai.bundle.scripts import update_kwargs
from monai.bundle.utils import merge_kv
from monai.utils import ensure_tuple
from tumour.errors import OptionError

# of `python -m monai.bundle run` itself
OPTIONS = "run_id init_id final_id meta_file config_file logging_file tracking args_file workflow_name".split()
FOLDERS = "bundle_root dataset_dir output_dir ckpt_dir".split()  # private, so not in records that may be shared
WORKFLOWS = ("train", "evaluate", "inference")


def started_by_monai() -> bool:
    """Whether this process was started as `python -m monai.bundle`, also by torchrun."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    return main is not None and main.name == "monai.bundle.__main__"


def parse_options(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of a command line, parsed by fire as in MONAI."""
    return fire.Fire(lambda *_, **options: options, command=list(arguments), serialize=lambda _: None)


def typed_options(arguments: Sequence[str]) -> dict[str, str]:
    """The options of a command line as they were typed."""
    as_typed = fire.decorators.SetParseFn(str)(lambda *_, **options: options)
    return fire.Fire(as_typed, command=list(arguments), serialize=lambda _: None)


def run_id_of(arguments: Sequence[str]) -> str:
    """The run id of a command line of `monai.bundle run`, in either of its two places."""
    given = words(arguments)[1:]
    return str(parse_options(arguments).get("run_id", given[0] if given else "run"))


def uses_weights() -> bool:
    """Whether this process uses weights that were trained before: a command of MONAI other than those that train.

    A release states this in each of its configs, so that other programs need not be asked.
    """
    return started_by_monai() and run_id_of(sys.argv[1:]) not in ("training", "crossvalidating")


def words(arguments: Sequence[str]) -> tuple[Any, ...]:
    """What a command line holds besides its options: `run` and the run id."""
    return fire.Fire(lambda *words, **_: words, command=list(arguments), serialize=lambda _: None)


def layers(options: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The config files of a run in order, and the settings in its args files and options that override them."""
    rest = {key: value for key, value in options.items() if key != "args_file"}
    for file in ensure_tuple(options.get("args_file", ())):
        content_of(str(file))  # which says what is wrong with it
    args = update_kwargs(options.get("args_file"), **rest)
    return list(ensure_tuple(args["config_file"])), {k: v for k, v in args.items() if k not in OPTIONS}


def merge(files: Sequence[str], settings: dict[str, Any]) -> ConfigParser:
    """Merge config files and settings into one config, without resolving references, as MONAI does."""
    content, parser = ConfigParser({}), ConfigParser()
    for file in files:
        for key, value in content_of(file).items():
            merge_kv(content, key, value)
    parser.read_config(content.get())
    parser.update(settings)
    return parser


def content_of(file: str) -> dict[str, Any]:
    """The content of a config file. It is parsed once, because that takes most of the time of a merge.

    Raises:
        OptionError: it is no JSON or YAML file, or holds no ids.
    """
    try:
        content = copy.deepcopy(_parsed(str(file), Path(file).stat().st_mtime_ns))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        why = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error).split("\n")[0]
        raise OptionError(f"'{file}' is no JSON or YAML file of settings ({why}); correct it.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise OptionError(f"'{file}' must contain settings by name, such as epochs: 50; correct it.")
    return content


@lru_cache
def _parsed(file: str, changed: int) -> dict[str, Any]:
    return ConfigParser.load_config_file(file)


def bundle_files(files: Sequence[str]) -> list[str]:
    """The config files that belong to the bundle: those up to the last `configs/train.yaml`, `evaluate` or `inference`.

    Later files, such as recipes, were added on the command line.
    """
    ends = [n for n, file in enumerate(map(Path, files)) if file.parent.name == "configs" and file.stem in WORKFLOWS]
    return list(files[: ends[-1] + 1 if ends else 1])


def changed_settings(bundle: Mapping[str, Any], run: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The settings of a run's config that differ from the bundle's config, as `name = value` or `name removed`."""
    for key in dict.fromkeys([*bundle, *run]):
        name, before, now = prefix + key, bundle.get(key), run.get(key)
        if key not in run:
            yield f"{name} removed"
        elif isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from changed_settings(before, now, f"{name}::")
        elif key not in bundle or before != now:
            yield f"{name} = {now if isinstance(now, str) else json.dumps(now, default=str)}"


def config_of(command: Sequence[str]) -> tuple[ConfigParser, dict[str, list[str]]]:
    """The merged config of a command line, and how it differs from the bundle's config.

    Args:
        command: the arguments of `python -m monai.bundle`.

    Returns:
        The merged config, with unresolved references and without the user's folders; and `files`, which are merged on
        top of the bundle's config files, and `settings`, which differ from them. Edits of the bundle's files do not
        count as differences.
    """
    options = parse_options(command)
    files, overrides = layers(options)
    default_files = bundle_files(files)
    run = merge(files, {key: value for key, value in overrides.items() if key not in FOLDERS})
    default = merge(default_files, {})
    added = [*files[len(default_files) :], *ensure_tuple(options.get("args_file", ()))[1:]]
    return run, {"files": added, "settings": list(changed_settings(default.get(), run.get()))}
