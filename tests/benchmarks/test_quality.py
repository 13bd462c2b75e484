"""The table of a budget compares the tools case by case."""

import json

import pandas as pd

from benchmarks import quality, results
from benchmarks.quality import SIDES, write_table


def test_the_lead_is_of_the_same_cases_whatever_their_order(tmp_path, monkeypatch):
    dice = {"ours": {"a": 0.5, "b": 0.875, "c": 0.25}, "nnunet-96": {"b": 0.625, "a": 0.25}}  # nnU-Net lost one
    for side, scores in dice.items():
        run = tmp_path / "quality" / f"{side}-600-7"
        (run / "results" / "scores").mkdir(parents=True)
        (run / "trial.json").write_text(json.dumps({"seconds": 600, "steps": 3, "cores": 2}))
        table = pd.DataFrame({"case": [*scores], "region": "TC", "kind": "region", "dice": [*scores.values()]})
        table.to_csv(run / "results" / "scores" / "scores.csv", index=False)
    rows = []
    monkeypatch.setattr(
        quality, "mean_dice", lambda folder: pd.read_csv(folder / "scores.csv").set_index("case")["dice"]
    )
    monkeypatch.setattr(results, "keep", lambda name, title, about, table, packages: rows.extend(table))
    write_table(tmp_path, 5, [7], [*dice], {"train": 1, "validate": 1, "test": 3})
    assert [row["side"] for row in rows] == [SIDES[side] for side in dice]
    assert [row["by seed"] for row in rows] == ["0.688", "0.438"]
    assert rows[1]["lead of the first"] == "0.250 (0.250 to 0.250)" and rows[0]["lead of the first"] == ""
