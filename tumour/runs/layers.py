"""What a command line makes of a bundle's layers: the merged config, and its departures from the bundle's files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
from monai.bundle import ConfigParser
from monai.bundle.scripts import update_kwargs
from monai.utils import ensure_tuple

OPTIONS = "run_id init_id final_id meta_file config_file logging_file tracking args_file".split()  # of `run` itself
PLACES = "bundle_root dataset_dir output_dir ckpt_dir".split()  # no settings, and what is told may travel
WORKFLOWS = ("train", "evaluate", "inference")


def command_of_run() -> list[str] | None:
    """The arguments of this process if it is `python -m monai.bundle run ...`; None if Python code uses the config."""
    is_run = Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py") and sys.argv[1:2] == ["run"]
    return sys.argv[1:] if is_run else None


def given(arguments: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The words and the options of a command line as MONAI reads them."""
    return fire.Fire(lambda *words, **options: (words, options), command=list(arguments), serialize=lambda _: None)


def typed(arguments: Sequence[str]) -> dict[str, str]:
    """The options of a command line as they were typed."""
    as_typed = fire.decorators.SetParseFn(str)(lambda *_, **options: options)
    return fire.Fire(as_typed, command=list(arguments), serialize=lambda _: None)


def layers(options: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The config files of a run in their order, and what its args files and options lay over them."""
    rest = {key: value for key, value in options.items() if key != "args_file"}
    args = update_kwargs(options.get("args_file"), **rest)
    return list(ensure_tuple(args["config_file"])), {k: v for k, v in args.items() if k not in OPTIONS}


def merge(files: Sequence[str], settings: dict[str, Any]) -> ConfigParser:
    """The merged config, unresolved."""
    parser = ConfigParser()
    parser.read_config(files)
    parser.update(settings)
    return parser


def of_the_bundle(files: Sequence[str]) -> list[str]:
    """Those of the config files that are the bundle's own: up to the last `configs/train.yaml` or the like."""
    ends = [n for n, file in enumerate(map(Path, files)) if file.parent.name == "configs" and file.stem in WORKFLOWS]
    return list(files[: ends[-1] + 1 if ends else 1])


def departures(own: Mapping[str, Any], run: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Each value of a run's config that is not the bundle's own, as `name = value`."""
    for key in dict.fromkeys([*own, *run]):
        name, before, now = within + key, own.get(key), run.get(key)
        if key not in run:
            yield f"{name} removed"
        elif isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from departures(before, now, f"{name}::")
        elif key not in own or before != now:
            yield f"{name} = {now if isinstance(now, str) else json.dumps(now, default=str)}"


def config_of(command: Sequence[str]) -> tuple[ConfigParser, dict[str, list[str]]]:
    """The merged config of a command line, and what is to be told of it.

    Returns:
        The config, unresolved and without the user's folders; the `files` laid over the bundle's own; the `settings`
        in which the config departs from those. An edit within the bundle's own files is no departure.
    """
    _, options = given(command)
    files, settings = layers(options)
    own = of_the_bundle(files)
    run = merge(files, {key: value for key, value in settings.items() if key not in PLACES})
    default = merge(own, {})
    over = [*files[len(own) :], *ensure_tuple(options.get("args_file", ()))[1:]]
    return run, {"files": over, "settings": list(departures(default.get(), run.get()))}
