"""RESULTS.md and results.json: a section a benchmark, the last run of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tumour.files import save_json, whole

from benchmarks.machine import machine

HERE = Path(__file__).parent
ORDER = ["training_step", "loading", "inference", "start", "quality", "scaling", "score", "check"]


def keep(name: str, title: str, about: str, rows: Sequence[Mapping[str, str]], packages: Sequence[str]) -> None:
    """Put the rows of a benchmark in the place of its last ones.

    Args:
        name: of its module, then what else tells its sections apart, as `training_step-96`.
        title, about: what stands above the table.
        rows: of the table, all with the same columns.
        packages: whose versions are told.
    """
    path = HERE / "results.json"
    sections = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    options = ["DIR" if Path(option).is_absolute() else option for option in sys.argv[1:]]
    command = " ".join(["python -m", f"benchmarks.{name.split('-')[0]}", *options])
    sections[name] = {"title": title, "about": about, "command": command, "machine": machine(*packages)}
    sections[name]["rows"] = list(rows)
    save_json(sections, path)
    write(sections)
    print(table(rows))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(row.values()) + " |" for row in rows])


def place(name: str) -> tuple:
    """Where a section stands: in the order of the benchmarks, numbers in the name by their size."""
    first, *others = name.split("-")
    return ORDER.index(first), [(float(part) if part.isdigit() else 0, part) for part in others]


def write(sections: Mapping[str, Mapping]) -> None:
    """RESULTS.md from all sections."""
    text = (
        "# Results\n\nMade by the commands below; a figure is the median of the rounds with the least and the most.\n"
    )
    for name in sorted(sections, key=place):
        each = sections[name]
        text += f"\n## {each['title']}\n\n{each['about']}\n\n`{each['command']}`, {each['machine']}\n\n"
        text += table(each["rows"]) + "\n"
    missing = [name for name in ORDER if not any(name == each.split("-")[0] for each in sections)]
    text += f"\nNot measured yet: {', '.join(missing)}.\n" if missing else ""
    with whole(HERE / "RESULTS.md") as part:
        part.write_text(text, encoding="utf-8")
