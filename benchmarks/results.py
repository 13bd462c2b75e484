"""RESULTS.md and results.json: one section per benchmark, from its last run; README.md: the most important rows."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tumour.files import save_json, save_text

from benchmarks.machine import WITHOUT, machine
from tools.tables import filled, markdown

HERE = Path(__file__).parent
ORDER = "commands training_step loading waiting inference folder start quality scaling many_cases score check".split()

START, END = "<!-- from results.json -->", "<!-- end -->"
OURS, NNUNET, ZOO = "these bundles, size fast", "nnU-Net v2", "model zoo's SegResNet"
COMPARED = {  # what a user waits for: section, column, side of each tool
    "a training step, two patches of 96³": (
        "training_step-96",
        "seconds per step",
        {OURS: "ours (`unet3d`), size fast", NNUNET: "nnU-Net, PlainConvUNet", ZOO: "model zoo, SegResNet"},
    ),
    "from the command to the first training step": (
        "start",
        "first, s",
        {
            OURS: "ours (`run training`, cache on disk)",
            NNUNET: "nnU-Net (fingerprint, plan, preprocess, train; second run: train)",
            ZOO: "model zoo's transforms, which check and cache nothing",
        },
    ),
    "segmenting a scan, from file to file": (
        "inference",
        "seconds per scan",
        {
            OURS: "ours (`unet3d`, size fast)",
            NNUNET: "nnU-Net's predictor, its PlainConvUNet, its 128³ windows",
            ZOO: "model zoo, SegResNet, one 240 x 240 x 160 window",
        },
    ),
    "the same with our network in nnU-Net's predictor": (
        "inference",
        "seconds per scan",
        {
            OURS: "ours (`unet3d`, size fast)",
            NNUNET: "nnU-Net's predictor, the same network, weights, 96³ windows",
        },
    ),
}
KINDS = {"with bfloat16": "", "without": "-without-bfloat16"}  # of CPUs: the ending of the names of their sections


def keep(name: str, title: str, about: str, rows: Sequence[Mapping[str, str]], packages: Sequence[str]) -> None:
    """Replace the section of a benchmark.

    Args:
        name: its module, and what else distinguishes its sections, such as `training_step-96`. A CPU without bfloat16
            has sections of its own, because our defaults are slower there.
        title, about: text above the table.
        rows: of the table.
        packages: whose versions to list.
    """
    path = HERE / "results.json"
    sections = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    options = ["DIR" if Path(option).is_absolute() else option for option in sys.argv[1:]]
    command = " ".join(["python -m", f"benchmarks.{name.split('-')[0]}", *options])
    if WITHOUT:
        name, title = name + KINDS["without"], f"{title}, {WITHOUT}"
    sections[name] = {"title": title, "about": about, "command": command, "machine": machine(*packages)}
    sections[name]["rows"] = list(rows)
    results, readme = page(sections), updated((HERE / "README.md").read_text(encoding="utf-8"), sections)
    save_json(sections, path)
    save_text(results, HERE / "RESULTS.md")
    save_text(readme, HERE / "README.md")
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


def updated(readme: str, sections: Mapping[str, Mapping]) -> str:
    """README.md with the rows of `COMPARED`, in seconds, by kind of CPU; a side that was not measured has no cell."""
    rows = []
    for what, (name, column, sides) in COMPARED.items():
        for cpu, ending in KINDS.items():
            if found := sections.get(name + ending):
                cells = {row["side"]: row[column].split()[0] for row in found["rows"]}  # of equal sides the last
                figures = {tool: cells[side] for tool, side in sides.items() if side in cells}
                number = found["machine"].split(", ")[1].split()[0]  # of "2 x Xeon" after the date
                rows.append({"seconds": what, "CPU": f"{number} cores, {cpu}", **figures})
    return filled(readme, START, END, markdown(rows))
