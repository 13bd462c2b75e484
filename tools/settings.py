"""Write docs/settings.md: every setting with its meaning, range and default, from the configs.

python -m tools settings
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from tumour.errors import InputError
from tumour.files import save_text
from tumour.runs.options import rules, wanted

from tools.bundles import ROOT
from tools.show import merged
from tools.tables import markdown

PAGE = ROOT / "docs" / "settings.md"
START = """# Every setting

<!-- written by `make docs` from bundles/common; do not edit -->

Each is an option of `python -m monai.bundle run`, as `--epochs 50`, and with make in `ARGS="--epochs 50"`. An option
that no config has, or a value out of its range, is refused before any work. Any other id of the merged config (`make
show`) can be set, too, but its values are not checked. Defaults marked with * are for a training; evaluating,
segmenting and fitting take them from the weights.
"""
OF_THE_WEIGHTS = ("@trained", "@of_weights")  # in the config
MACHINE = "chosen for the machine"


def sources(config_files: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Name, first comment and lines of each config file."""
    for file in config_files:
        text = (ROOT / file).read_text(encoding="utf-8")
        title = re.match(r"(?:# .*\n)+", text)
        yield Path(file).name, re.sub(r"\s*#\s*", " ", title[0]).strip() if title else "", text.splitlines()


def meaning(setting: str, lines: list[str]) -> str | None:
    """The comment behind a setting in a config file; None if the file does not set it."""
    *parents, name = setting.split("::")
    inside = not parents
    for line in lines:
        if re.match(r"\S", line):
            inside = not parents or line.startswith(f"{parents[0]}:")
        if inside and (found := re.match(rf"{'  ' * len(parents)}{name}:(?=\s).*?(?:\s#\s(.*))?$", line)):
            return found[1] or ""
    return None


def default(setting: str, rule: Mapping[str, Any], parsers: Mapping[str, ConfigParser]) -> str:
    """The default of a setting as text, for a CPU and a GPU where they differ."""
    first = next(iter(parsers.values()))
    stored = first[setting]
    if rule["type"] == "device" or isinstance(stored, Mapping) and "_target_" in stored:
        return MACHINE
    if rule["type"] == "reference":
        return rule["default"]
    values = {device: parser.get_parsed_content(setting) for device, parser in parsers.items()}
    texts = {device: f"`{value}`" if value != "" else "" for device, value in values.items()}
    text = texts["cpu"] if len({*texts.values()}) == 1 else f"{texts['cpu']}, on a GPU {texts['cuda']}"
    return text + ("*" if any(name in str(stored) for name in OF_THE_WEIGHTS) else "")


def kind(setting: str, rule: Mapping[str, Any], parser: ConfigParser) -> str:
    """The type and the range of a setting in words."""
    if "by" in rule:  # its choices are the entries of the part with its name in the plural
        rule = {**rule, "choices": list(parser[f"{setting}s"])}
    below = f", below `{rule['below']}`" if "below" in rule else ""
    either = f", or `{rule['or']}`" if rule.get("or") else ""
    return wanted({key: value for key, value in rule.items() if key != "or"}) + below + either


def page() -> str:
    """The page of all settings, one table per config file.

    Raises:
        InputError: a setting has no comment, or no config sets it.
    """
    args = "bundles/unet3d/args.yaml"
    parsers = {}
    for device in ("cpu", "cuda"):
        parsers[device] = merged(args)
        parsers[device].update({"device": device, "bundle_root": "BUNDLE"})
    left = dict(rules(parsers["cpu"]["settings"]))
    text = [START]
    for file, title, lines in sources(ConfigParser.load_config_file(args)["config_file"]):
        rows = []
        for setting in [*left]:
            comment = meaning(setting, lines)
            if comment is None:
                continue
            if not comment:
                raise InputError(f"{setting} has no comment in bundles/common/{file}; say behind it what it means.")
            rule = left.pop(setting)
            rows.append(
                {
                    "setting": f"`{setting}`",
                    "meaning": comment,
                    "value": kind(setting, rule, parsers["cpu"]),
                    "default": default(setting, rule, parsers),
                }
            )
        if rows:
            text.append(f"## {file}\n\n{title}\n\n{markdown(rows)}\n")
    rows = []
    for setting, rule in left.items():  # options that are no part of a config
        comment = meaning(f"settings::{setting}", (ROOT / "bundles/common/settings.yaml").read_text().splitlines())
        if not comment:
            raise InputError(f"bundles/common/settings.yaml has {setting}, which no config sets; say what it means.")
        rows.append({"setting": f"`{setting}`", "meaning": comment, "value": wanted(rule), "default": ""})
    text += [f"## Of the command line\n\n{markdown(rows)}\n"] if rows else []
    return "\n".join(text)


def write_page() -> str:
    """Write docs/settings.md."""
    save_text(page(), PAGE)
    return f"{PAGE.relative_to(ROOT)}: settings written"
