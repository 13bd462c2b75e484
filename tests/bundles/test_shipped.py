"""The trained weights of this repository, `bundles/NAME/weights`, and weights used from such a folder."""

import json
import shutil

import pytest
import torch
from tumour.runs.checkpoints import load_weights, read_checkpoint
from tumour.runs.trained import settings_of, settings_to_use
from tumour.scores.evaluation import crossvalidation_of, scores_of

from tests.conftest import BUNDLES, ROOT, succeed
from tools.patients.synthetic import make_patients
from tools.release.pack import LARGE
from tools.show import merged

SHIPPED = sorted(path.parent.name for path in ROOT.glob("bundles/*/weights"))
shipped = pytest.mark.parametrize("bundle", SHIPPED)


def folder_of(bundle):
    return ROOT / "bundles" / bundle / "weights"


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@shipped
def test_weights_are_in_float16_next_to_their_record_and_no_file_is_large(bundle):
    files = files_of(folder_of(bundle))
    assert {"model.pt", "patients.json", "settings.json", "scores.json"} <= files.keys()
    assert max(map(len, files.values())) < LARGE
    weights = torch.load(folder_of(bundle) / "model.pt", weights_only=True)
    floats = [value for value in weights.values() if value.is_floating_point()]
    assert all(value.dtype == torch.float16 or value.abs().max() > 65504 for value in floats)


@shipped
def test_the_scores_are_of_exactly_this_file_and_of_patients_not_used_for_it(bundle):
    patients = json.loads((folder_of(bundle) / "patients.json").read_text())
    train, validate, test = (set(patients[part]) for part in ("train", "validate", "test"))
    assert train.isdisjoint(validate) and test.isdisjoint(train | validate)
    settings, weights = settings_of(str(folder_of(bundle))), folder_of(bundle) / "model.pt"
    if settings["fold"] == "all":  # trained on all patients: it has only the score of its cross-validation
        assert train and not validate | test and not scores_of(weights)
        scores, scored = crossvalidation_of(weights)[settings["cohort"]]["scores"], len(train)
    else:
        assert train and validate and test
        scores, scored = scores_of(weights)[settings["cohort"]]["scores"], len(test)
    assert {"TC", "WT", "ET"} <= scores.keys()
    assert all(of["dice"]["cases"] >= scored and 0 < of["dice"]["mean"] <= 1 for of in scores.values())


@shipped
def test_the_network_of_the_settings_loads_the_weights_and_its_output_is_finite(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path, settings = folder_of(bundle) / "model.pt", settings_of(str(folder_of(bundle)))
    make_patients(tmp_path, cases=1, size=40, cohort=settings["cohort"])
    parser = merged(f"bundles/{bundle}/args.yaml")
    parser["trained"] = settings_to_use(parser["defaults"], str(folder_of(bundle)))
    parser.update({"dataset_dir": str(tmp_path), "device": "cpu", "precision": "float32", "patch_size": [32] * 3})
    network = parser.get_parsed_content("network")
    load_weights(network, read_checkpoint(path), path)
    image = parser.get_parsed_content("preprocessing")(parser.get_parsed_content("scans").complete[0].item())["image"]
    with torch.no_grad():
        logits = parser.get_parsed_content("inferer")(image[None], network.eval())
    assert logits.shape[2:] == image.shape[1:] and logits.isfinite().all() and logits.std() > 0


def test_weights_from_another_folder_segment_and_score_other_patients_and_only_their_record_changes(
    patients, trained, tmp_path
):
    """As `--ckpt_dir bundles/NAME/weights` does; all patients of the second data set have other ids."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("model.pt", "patients.json", "settings.json"):
        shutil.copy(trained(BUNDLES[0]) / "models" / name, folder)
    before = files_of(folder)
    succeed("inferring", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), ckpt_dir=folder)
    assert files_of(folder) == before
    for cohort, share in (("brats2021", 0.2), ("brats2023_gli", 1.0)):
        succeed("evaluating", BUNDLES[0], tmp_path, cohort, patients(cohort), ckpt_dir=folder, test_share=share)
    after = files_of(folder)
    assert after.keys() - before.keys() == {"scores.json"} and after.items() >= before.items()
    scored = {cohort: of["scores"]["WT"]["dice"]["cases"] for cohort, of in scores_of(folder / "model.pt").items()}
    assert scored == {"brats2021": 1, "brats2023_gli": 6}
