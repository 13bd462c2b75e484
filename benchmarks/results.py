"""RESULTS.md and results.json: one section per benchmark, from its last run."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tumour.files import save_json, save_text

from benchmarks.machine import machine
from tools.tables import markdown

HERE = Path(__file__).parent
ORDER = "training_step loading waiting inference folder start quality scaling many_cases score check".split()


def keep(name: str, title: str, about: str, rows: Sequence[Mapping[str, str]], packages: Sequence[str]) -> None:
    """Replace the section of a benchmark.

    Args:
        name: its module, and what else distinguishes its sections, such as `training_step-96`.
        title, about: text above the table.
        rows: of the table.
        packages: whose versions to list.
    """
    path = HERE / "results.json"
    sections = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    options = ["DIR" if Path(option).is_absolute() else option for option in sys.argv[1:]]
    command = " ".join(["python -m", f"benchmarks.{name.split('-')[0]}", *options])
    sections[name] = {"title": title, "about": about, "command": command, "machine": machine(*packages)}
    sections[name]["rows"] = list(rows)
    save_json(sections, path)
    save_text(page(sections), HERE / "RESULTS.md")
    print(markdown(rows))


def place(name: str) -> tuple:
    """The sort key of a section: the order of the benchmarks, then numbers in the name by size, then words."""
    first, *others = name.split("-")
    return ORDER.index(first), [(float(word) if word.isdigit() else math.inf, word) for word in others]


def page(sections: Mapping[str, Mapping]) -> str:
    """The text of RESULTS.md."""
    text = "# Results\n\nFrom the commands below. Figures are the median over the rounds, with minimum and maximum.\n"
    for name in sorted(sections, key=place):
        each = sections[name]
        command = (
            f"`{each['command']}`" if each["command"] else "Measured by a script that is not in the repository yet"
        )
        text += f"\n## {each['title']}\n\n{each['about']}\n\n{command}, {each['machine']}\n\n"
        text += markdown(each["rows"]) + "\n"
    missing = [name for name in ORDER if not any(name == each.split("-")[0] for each in sections)]
    return text + (f"\nNot measured yet: {', '.join(missing)}.\n" if missing else "")
