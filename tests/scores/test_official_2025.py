"""Lesion-wise scores agree with the organisers' program of 2025, where it is installed in an environment of its own.

git clone https://github.com/rachitsaluja/BraTS-2024-Metrics /tmp/metrics && git -C /tmp/metrics checkout 9e8879a
python3.11 -m venv /tmp/metrics/env && /tmp/metrics/env/bin/pip install --requirement /tmp/metrics/requirements.txt
BRATS_METRICS=/tmp/metrics .venv/bin/python -m pytest tests/scores/test_official_2025.py
"""

import json
import os
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tumour.scores.challenges import score_case

from tests.cohorts import COHORTS
from tests.masks import MM
from tests.scores.test_official import CAVITY, random_pair

PROGRAM = Path(os.environ.get("BRATS_METRICS", ""))
PYTHON = PROGRAM / "env" / "bin" / "python"
pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="BRATS_METRICS is not a folder with the program")
SCORE = """
import contextlib, io, json, sys
from importlib import import_module
from pathlib import Path
sys.path.insert(0, sys.argv[1])
found = {}
for reference in sorted(Path("reference").glob("*.nii.gz")):
    with contextlib.redirect_stdout(io.StringIO()):
        score = import_module("metrics_" + sys.argv[2].replace("-", "_")).get_LesionWiseResults
        table, _ = score("prediction/" + reference.name, str(reference), "BraTS-" + sys.argv[2])
    found[reference.name.split(".")[0]] = table.set_index("Labels").to_dict("index")
Path("scores.json").write_text(json.dumps(found, default=float))
"""
NAMES = {  # their columns: ours
    "LesionWise_Score_Dice": "lesion_dice",
    "LesionWise_Score_HD95": "lesion_hd95",
    "LesionWise_Score_NSD @ 0.5": "lesion_nsd_0.5",
    "LesionWise_Score_NSD @ 1.0": "lesion_nsd_1.0",
    "Num_TP": "lesions_found",
    "Num_FP": "lesions_invented",
    "Num_FN": "lesions_missed",
}
CLASSES = {"NETC": "necrotic", "SNFH": "oedema", "ED": "oedema"}  # their names of classes that are no regions
RUNS = {  # challenge: their name of the task, data set
    "glioma2025": ("GLI", "brats2024_gli"),
    "africa2025": ("SSA", "brats2023_ssa"),
    "meningioma2025": ("MEN", "brats2023_men"),
    "pediatric2025": ("PED", "brats2024_ped"),
    "metastases2024": ("MET", "brats2024_met_rc"),
}


def pairs(cohort):
    """Fifty random pairs of label maps of positions in the classes of the data set, with their spacing.

    For Africa, one more has two lesions that a piece of another class joins, which the random ones are too small for.
    """
    joined = np.zeros((44, 36, 30), np.uint8)
    joined[4:34, 10:14, 10:14] = 1
    joined[0:4, 10:14, 10:14] = joined[34:38, 10:14, 10:14] = 3  # two lesions that touch the same necrotic piece
    if cohort.name == "brats2023_ssa":
        yield "joined", joined, np.where(joined == 1, 2, joined), MM
    for seed in range(50):
        *pair, spacing = random_pair(seed)
        four = len(cohort.classes) == CAVITY
        yield f"{seed:05d}-000", *(np.where(each == CAVITY, 2, each) if four else each for each in pair), spacing


@pytest.mark.parametrize("challenge", RUNS)
def test_every_lesion_wise_figure_of_the_program_is_reproduced(challenge, tmp_path):
    task, cohort = RUNS[challenge][0], COHORTS[RUNS[challenge][1]]
    for case, *pair, spacing in pairs(cohort):
        for folder, classes in zip(("reference", "prediction"), pair, strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            values = cohort.to_values(classes.astype(np.uint8)).astype(np.uint8)
            nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1])), tmp_path / folder / f"{case}.nii.gz")
    command = [str(PYTHON), "-c", SCORE, str(PROGRAM.resolve()), task]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs, compared = json.loads((tmp_path / "scores.json").read_text()), 0
    for case, truth, guess, spacing in pairs(cohort):
        rows, _ = score_case(case, truth, guess, spacing, challenge, cohort)
        ours = {row["region"]: row for row in rows}
        for region, figures in theirs[case].items():
            row = ours[CLASSES.get(region, region)]
            for column, name in NAMES.items():
                assert row[name] == pytest.approx(figures[column], abs=1e-6), (case, region, column)
                compared += 1
    assert compared >= 50 * 3 * len(NAMES)
