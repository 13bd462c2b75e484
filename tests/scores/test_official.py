"""Scores agree with the organisers' package of 2026, where it is installed in an environment of its own.

python3.11 -m venv /tmp/official && /tmp/official/bin/pip install BraTS_evaluation==0.0.10
BRATS_EVALUATION=/tmp/official .venv/bin/python -m pytest tests/scores/test_official.py
"""

import json
import os
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tumour.scores.challenges import score_case

from tests.cohorts import COHORTS
from tests.masks import MM
from tests.scores.test_challenges import GOLDENS

OFFICIAL = Path(os.environ.get("BRATS_EVALUATION", ""), "bin")
pytestmark = pytest.mark.skipif(
    not (OFFICIAL / "brats-evaluate").is_file(), reason="BRATS_EVALUATION is not an environment with the package"
)
AREAS = """
import json, sys
from pathlib import Path
from brats_evaluation import config_path
from panoptica import Panoptica_Evaluator
evaluator, areas = Panoptica_Evaluator.load_from_config(str(config_path(sys.argv[1]))), {}
for reference in sorted(Path(sys.argv[2]).glob("*-seg.nii.gz")):
    prediction = Path(sys.argv[3]) / reference.name.replace("-seg", "")
    results = evaluator.evaluate_autc(str(prediction), str(reference))
    areas[reference.name] = {name: result.get_autc("rq") for name, result in results.items()}
Path(sys.argv[4]).write_text(json.dumps(areas))
"""
NAMES = {  # their columns: ours
    "global_dsc": "dice",
    "global_nsd": "nsd",
    "global_hd95": "hd95",
    "all_instance_tp": "lesions_found",
    "all_instance_fp": "lesions_invented",
    "all_instance_fn": "lesions_missed",
    "all_instance_f1": "lesion_f1",
    "lesionwise_dsc_mean": "lesion_dice",
    "lesionwise_nsd_mean": "lesion_nsd",
    "lesionwise_hd95_mean": "lesion_hd95",
    "large_instance_f1": "lesion_f1_large",
    "small_instance_f1": "lesion_f1_small",
}
CAVITY = 4
RUNS = {  # challenge: config of the package, its second command, data set
    "metastases2026": ("mets", ["mets", "--vol_threshold", 275], "brats2024_met_rc"),
    "goat2026": ("GoAT", ["seg"], "brats2023_gli"),
}


def random_map(random, boxes):
    """Boxes of random classes; some are moved by up to two voxels from those of the reference."""
    out = np.zeros((44, 36, 30), np.uint8)
    for corner, size, label in boxes:
        corner = np.maximum(corner + random.integers(-2, 3, 3), 0)
        out[tuple(slice(a, a + b) for a, b in zip(corner, size, strict=True))] = label
    return out


def random_pair(seed):
    """Label maps (x, y, z) with lesions of 1 to 700 voxels, some missed or invented, on a grid of 1 mm or another.

    The package applies the spacing of x to z and the other way round, so these are equal.
    """
    random = np.random.default_rng(seed)
    boxes = [
        (random.integers(0, (34, 26, 20)), random.integers(1, 10, 3), random.integers(1, 5))
        for _ in range(random.integers(0, 9))
    ]
    kept, more = random.random(len(boxes)) < 0.8, random.random(len(boxes)) < 0.8
    pair = [random_map(random, [box for box, use in zip(boxes, part, strict=True) if use]) for part in (kept, more)]
    return *pair, (1.0, 1.0, 1.0) if seed % 2 else (0.75, 1.5, 0.75)


def pairs(cohort):
    """Reference, prediction and spacing by case, with the classes of the data set."""
    found = {f"{seed:05d}-000": random_pair(seed) for seed in range(50)}
    for path in sorted(GOLDENS.glob("*-seg.nii.gz")):
        files = [nib.load(path), nib.load(str(path).replace("-seg", "-pred"))]
        found[path.name[10:19]] = (*(np.asarray(file.dataobj).astype(np.uint8) for file in files), (1.0, 1.0, 1.0))
    if "cavity" in COHORTS[cohort].classes:
        return found
    return {
        case: (*(np.where(values == CAVITY, 2, values) for values in pair), spacing)
        for case, (*pair, spacing) in found.items()
    }


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


def figures(folder, config, command, cohort):
    """The figures of the package: a table by case, and the areas under F1."""
    reference, prediction = folder / "reference", folder / "prediction"
    for case, (truth, guess, spacing) in pairs(cohort).items():
        for values, path in ((truth, reference / f"{case}-seg.nii.gz"), (guess, prediction / f"{case}.nii.gz")):
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(values.astype(np.uint8), np.diag([*spacing, 1])), path)
    summary, table, areas = (folder / name for name in ("summary.json", "table.csv", "areas.json"))
    folders = "--ref_path", reference, "--pred_path", prediction
    run(OFFICIAL / "brats-evaluate", "--config", config, *folders, "--summary_json", summary)
    run(OFFICIAL / "brats-parse-metrics", *command, "--json_path", summary, "--output_csv_path", table)
    run(OFFICIAL / "python", "-c", AREAS, config, reference, prediction, areas)
    return pd.read_csv(table).set_index("subject_id"), json.loads(areas.read_text())


@pytest.mark.parametrize("challenge", RUNS)
def test_every_figure_of_the_package_is_reproduced(challenge, tmp_path):
    config, command, cohort = RUNS[challenge]
    table, areas = figures(tmp_path, config, command, cohort)
    compared = 0
    for case, (truth, guess, spacing) in pairs(cohort).items():
        name = f"{case}-seg.nii.gz"
        rows, _ = score_case(case, truth, guess, spacing, challenge, COHORTS[cohort])
        for row in rows:
            region = row["region"].lower()
            if row["kind"] != "region" or region not in areas[name]:
                continue
            for theirs, own in NAMES.items():
                if f"{theirs}_{region}" not in table or (own == "hd95" and spacing != MM):
                    continue  # the package gives the HD95 of a region in voxels
                figure = table.at[name, f"{theirs}_{region}"]
                figure = 373 if np.isinf(figure) else figure  # without a found lesion
                assert row[own] == pytest.approx(figure, abs=1e-6, nan_ok=True), (case, region, theirs)
                compared += 1
            # their area of a region that is in neither map is 0
            assert np.nan_to_num(row["lesion_f1_area"]) == pytest.approx(areas[name][region], abs=1e-6), (case, region)
    assert compared > 1400
