"""Every bundle, run with the command line of a user: it trains, scores, and segments scans of three cohorts."""

import csv
import json
import shutil
import signal
import subprocess
import time

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy import ndimage
from tumour.cases.find import find_cases
from tumour.maps.regions import ToRegionsd
from tumour.runs.inferers import MixedPrecision

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, CONVENTIONS, REAL, ROOT, arguments, parser_of, run, run_in_a_process, succeed
from tools.patients.synthetic import make_patients

CLASSES = ["necrotic", "oedema", "enhancing"]
EVERY_CLASS = {"after_treatment::threshold": {"TC": 0.1, "WT": 0.1, "ET": 0.1}}  # an untrained network gives about 0.1
bundles = pytest.mark.parametrize("bundle", BUNDLES)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    (
        "bundle",
        "convention",
    ),  # networks do not depend on the names of files, and reading does not depend on the network
    [*((bundle, CONVENTIONS[0]) for bundle in BUNDLES), *((BUNDLES[0], convention) for convention in CONVENTIONS[1:])],
)
def test_a_bundle_trains_scores_and_segments(bundle, convention, patients, trained):
    data, folder = patients(convention), trained(bundle, convention)
    cases = find_cases(str(data), COHORTS[convention], FOUR).complete

    log = rows(folder / "results" / "training.csv")
    assert [row["epoch"] for row in log] == ["1", "2"]
    for column in "loss learning_rate train_dice_WT train_iou_ET validate_loss validate_dice validate_iou_TC".split():
        assert np.isfinite([float(row[column]) for row in log]).all()
    assert all(float(row["loss"]) > 0 and float(row["validate_loss"]) > 0 for row in log)
    assert list((folder / "results" / "tensorboard").iterdir())
    assert all(isinstance(v, torch.Tensor) for v in torch.load(folder / "models" / "model.pt").values())

    printed = succeed("evaluating", bundle, folder, convention, data, **EVERY_CLASS)
    scores = pd.read_csv(folder / "results" / "scores" / "scores.csv")
    measured = pd.read_csv(folder / "results" / "segmentations" / "measurements.csv")
    assert set(measured["case"]) == set(scores["case"])  # those of an earlier run would be of other label maps
    record = json.loads((folder / "models" / "patients.json").read_text())
    patient_of = {case.name: case.patient for case in cases}
    assert {patient_of[case] for case in scores["case"]} == set(record["test"])
    assert {"TC", "WT", "ET"} <= set(scores["region"])
    assert {"dice", "iou", "hd95", "sensitivity", "precision"} <= set(scores.columns)
    assert "WT" in printed and "±" in printed

    succeed("inferring", bundle, folder, convention, data, **EVERY_CLASS)
    predicted = scores.set_index(["case", "region"])["predicted_ml"]
    for case in cases:
        source = nib.load(case.images[0])
        label = nib.load(folder / "results" / "segmentations" / f"{case.name}.nii.gz")
        assert label.shape == source.shape[:3] and label.get_data_dtype() == np.uint8
        assert np.allclose(label.affine, source.affine)
        assert label.header["qform_code"] == source.header["qform_code"]
        values, counts = np.unique(label.dataobj, return_counts=True)
        assert values.tolist() == sorted(COHORTS[convention].label_values)
        if case.name in set(scores["case"]):  # the written label map is the one that was scored
            stored = dict(zip(values, counts / 1000, strict=True))
            for name, value in zip(CLASSES, COHORTS[convention].label_values[1:], strict=True):
                assert stored[value] == pytest.approx(predicted[case.name, name])
    measured = pd.read_csv(folder / "results" / "segmentations" / "measurements.csv").set_index("case")
    assert set(measured.index) == {case.name for case in cases}
    for case in set(scores["case"]):
        assert measured.loc[case, "WT_ml"] == pytest.approx(predicted[case, "WT"], abs=1e-3)


@bundles
def test_an_after_treatment_is_fitted_to_validation_cases_and_used_by_evaluating(bundle, patients, trained, tmp_path):
    data, folder = patients("brats2021"), trained(bundle)
    succeed("fitting", bundle, folder, "brats2021", data)
    path = folder / "models" / "after_treatment.json"
    fitted = json.loads(path.read_text())
    assert fitted["fitted"]["cases"] == len(json.loads((folder / "models" / "patients.json").read_text())["validate"])
    path.write_text(json.dumps({**fitted, "threshold": {"WT": 0}}))  # tumour everywhere
    succeed("evaluating", bundle, tmp_path, "brats2021", data, ckpt_dir=folder / "models")
    scores = pd.read_csv(tmp_path / "results" / "scores" / "scores.csv").set_index("region")
    assert scores.loc["WT", "predicted_ml"] == pytest.approx(40**3 / 1000)
    other = tmp_path / "given.json"
    other.write_text(json.dumps({**fitted, "threshold": {"WT": 0.9}}))
    settings = {"ckpt_dir": folder / "models", "after_treatment": f"%{other}"}
    succeed("evaluating", bundle, tmp_path, "brats2021", data, **settings)
    scores = pd.read_csv(tmp_path / "results" / "scores" / "scores.csv").set_index("region")
    assert scores.loc["WT", "predicted_ml"] < 40**3 / 1000


def test_a_scan_on_another_grid_is_brought_to_the_training_grid_and_back(patients, tmp_path):
    """FLAIR itself stands in for the logits, so it shows where each voxel came from and went to."""
    case = find_cases(str(patients("brats2021")), COHORTS["brats2021"], FOUR).complete[0]
    for path in case.images:
        scan = nib.load(path)
        array = np.asarray(scan.dataobj)[::-1, ::2].transpose(2, 0, 1)  # mirrored, 2 mm apart, axes exchanged
        affine = scan.affine @ [[-1, 0, 0, 39], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        target = tmp_path / case.name / path.rsplit("/", 1)[1]
        target.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine[:, [2, 0, 1, 3]]), target)
    parser = parser_of("brats2021", tmp_path, "brats", "inference")
    parser["activate"], parser["restore"] = [], []  # only the way back
    item = parser.get_parsed_content("preprocessing")(parser.get_parsed_content("scans").complete[0].item())
    assert np.allclose(item["image"].pixdim, 1) and nib.aff2axcodes(item["image"].affine.numpy()) == ("R", "A", "S")
    item["pred"] = item["image"][3:].clone()
    back = parser.get_parsed_content("postprocessing")(item)["pred"][0].numpy()
    flair = np.asarray(nib.load(next(tmp_path.glob("*/*_flair.nii.gz"))).dataobj)
    assert back.shape == flair.shape
    assert np.corrcoef(back[flair > 0], flair[flair > 0])[0, 1] > 0.97


@pytest.mark.parametrize(
    ("convention", "spacing"), [("brats2024_met_rc", (0.86, 0.86, 1.5)), ("msd", (0.9, 1.0, 1.3)), ("brats2024_gli", 1)]
)
def test_a_label_on_a_native_grid_is_restored_from_the_training_grid(convention, spacing, tmp_path):
    make_patients(tmp_path / "data", cases=1, size=56, cohort=convention, spacing=spacing)
    parser = parser_of(convention, tmp_path / "data", "brats", "train", "inference", output_dir=str(tmp_path / "out"))
    case = parser.get_parsed_content("parts").found.complete[0]
    parser["preprocessing::transforms"] = "$@read_label + @read"
    item = parser.get_parsed_content("preprocessing")(case.item())
    assert np.allclose(item["image"].pixdim, 1) and item["image"].shape[1:] == item["label"].shape[1:]
    cohort = COHORTS[convention]
    assert set(item["label"].unique().tolist()) == set(range(len(cohort.classes)))
    inside = ToRegionsd("label", cohort.regions, cohort.classes)(item)["label"]
    item["pred"] = MetaTensor(inside * 20 - 10, meta=item["image"].meta)  # logits of a network that is always right
    parser.get_parsed_content("postprocessing")(item)
    source, stored = (
        nib.load(path) for path in (case.label, tmp_path / "out" / "segmentations" / f"{case.name}.nii.gz")
    )
    assert np.allclose(source.affine, stored.affine)
    truth, back = np.asanyarray(source.dataobj), np.asanyarray(stored.dataobj)
    for value in COHORTS[convention].label_values[1:]:
        dice = 2 * ((truth == value) & (back == value)).sum() / ((truth == value).sum() + (back == value).sum())
        assert dice == 1 if spacing == 1 else dice > 0.8, (value, dice)


def test_the_logits_are_interpolated_to_the_position_of_each_native_voxel(tmp_path):
    """The value of each voxel of the training grid is its position in mm; that of each native voxel must be so too."""
    make_patients(tmp_path, cases=1, size=48, cohort="brats2024_met", spacing=(0.7, 0.86, 1.5))
    parser = parser_of("brats2024_met", tmp_path, "brats", "inference", output_dir=str(tmp_path / "out"))
    parser["activate"], parser["restore"] = [], []
    item = parser.get_parsed_content("preprocessing")(parser.get_parsed_content("scans").complete[0].item())
    shape, affine = item["image"].shape[1:], item["image"].affine
    voxels = torch.cat([torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")), torch.ones(1, *shape)])
    places = torch.einsum("ij,jxyz->ixyz", affine, voxels.to(affine.dtype))[:3]
    item["pred"] = MetaTensor(
        places.float() + 200, meta=item["image"].meta
    )  # 0 is the value of voxels that were cropped away
    back = parser.get_parsed_content("postprocessing")(item)["pred"].numpy()
    scan = nib.load(next(tmp_path.glob("*/*-t1n.nii.gz")))
    expected = np.stack(np.meshgrid(*map(np.arange, scan.shape), indexing="ij"), axis=-1)
    expected = np.moveaxis(nib.affines.apply_affine(scan.affine, expected), -1, 0) + 200
    inside = ndimage.binary_erosion((back > 1).all(axis=0), iterations=2)
    assert inside.mean() > 0.2 and np.abs(back - expected)[:, inside].max() < 0.02


def test_a_network_trained_with_modality_dropout_segments_a_case_that_lacks_one(patients, tmp_path):
    make_patients(tmp_path / "data", cases=2, size=40, missing="T2")
    data = patients("brats2021")
    succeed("training", BUNDLES[0], tmp_path, "brats2021", data, epochs=1, modality_dropout=0.5)
    printed = succeed("inferring", BUNDLES[0], tmp_path, "brats2021", tmp_path / "data")
    assert "BraTS2021_00001: has no T2; the network can segment it, but less accurately" in printed
    assert "2 of 2 cases segmented" in printed


def inputs_of(cohort, data, index):
    parser = parser_of(cohort, data, "brats", "train")
    case = parser.get_parsed_content("parts").found.complete[index]
    return parser.get_parsed_content("validate::preprocessing")(case.item())


def test_the_same_patient_gives_the_same_input_and_target_in_every_convention(patients):
    first, second, third = (inputs_of(convention, patients(convention), 3) for convention in CONVENTIONS)
    assert torch.equal(first["image"], second["image"]) and torch.equal(first["label"], second["label"])
    assert torch.allclose(first["image"], third["image"], atol=1e-4) and torch.equal(first["label"], third["label"])


@pytest.mark.skipif(not REAL.is_dir(), reason="the real patients of ../shared/data are not on this machine")
def test_one_real_patient_gives_the_same_input_under_its_2021_and_2023_names():
    first = inputs_of("brats2021", REAL / "BraTS2021", 0)
    second = inputs_of("brats2023_gli", REAL / "BraTS2023-GLI", 0)
    assert torch.equal(first["image"], second["image"]) and torch.equal(first["label"], second["label"])


def test_augmentation_does_not_change_the_cached_case(patients):
    parser = parser_of("brats2021", patients("brats2021"), "brats", "train", patch_size=[32, 32, 32], workers=0)
    parser["augment"] = [{**step, **({"prob": 1.0} if "prob" in step else {})} for step in parser["augment"]]
    dataset = parser.get_parsed_content("train::dataset")
    before = [{k: v.clone() for k, v in item.items() if isinstance(v, torch.Tensor)} for item in dataset._cache]
    for _ in range(3):
        for index in range(len(dataset)):
            item = dataset[index][0]
            assert item["image"].shape == (4, 32, 32, 32) and item["label"].shape == (3, 32, 32, 32)
            assert set(item["label"].unique().tolist()) <= {0.0, 1.0}
    for old, new in zip(before, dataset._cache, strict=True):
        assert all(torch.equal(value, new[key]) for key, value in old.items())


def patches_of(data, **settings):
    """A patch of every case, with seeded random transforms."""
    parser = parser_of("brats2021", data, "brats", "train", patch_size=[32] * 3, workers=0, **settings)
    dataset = parser.get_parsed_content("train::dataset")
    dataset.transform.set_random_state(0)
    return [dataset[index][0] for index in range(len(dataset))]


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_cached_case_gives_the_same_patches_as_one_that_is_read_again(cache, patients, tmp_path):
    data = patients("brats2021")
    kept, anew = (patches_of(data, cache=kind, cache_dir=str(tmp_path)) for kind in (cache, "none"))
    for one, other in zip(kept, anew, strict=True):
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["label"], other["label"])


def test_compact_arrays_and_precomputed_centres_give_the_same_patches_as_without_them(patients):
    """Without the maximum number of centres per class, which would remove some of them."""
    config = yaml.safe_load((ROOT / "bundles/common/train.yaml").read_text())
    (centres,), (cut, _, *rest) = config["centres"], config["crop"]
    del cut["indices_key"]
    fast = {"centres": [centres | {"max_samples_per_class": None}]}
    plain = {"centres": [], "compact": {"image": [], "label": []}, "crop": [cut, *rest]}
    fast, plain = (patches_of(patients("brats2021"), cache="none", augment=[], drop=[], **way) for way in (fast, plain))
    for one, other in zip(fast, plain, strict=True):
        assert torch.equal(one["label"], other["label"]) and one["label"].any()
        torch.testing.assert_close(one["image"], other["image"], rtol=1e-3, atol=1e-6, check_dtype=False)


def test_a_patch_is_centred_on_each_class_equally_often():
    parser = parser_of("brats2021", ROOT, "brats", "train", patch_size=[16, 16, 16])
    label = torch.zeros(1, 40, 36, 32, dtype=torch.uint8)
    label[0, 10:30, 10:26, 10:22], label[0, 14:20, 12:20, 12:18], label[0, 22:24, 12:14, 12:14] = 2, 1, 3
    centres, crop = (Compose(parser.get_parsed_content(name)) for name in ("centres", "crop"))
    crop.set_random_state(0)
    item = centres({"image": torch.zeros(4, *label.shape[1:]), "label": label})
    found = [int(crop(dict(item))[0]["label"][0, 8, 8, 8]) for _ in range(400)]
    # a patch at the border of a scan is moved inwards, so some of those on background have tumour at their centre
    assert [found.count(value) / 400 for value in (1, 2, 3)] == pytest.approx([0.25] * 3, abs=0.07)


def test_a_resized_label_has_no_values_between_its_classes():
    parser = parser_of("brats2021", ROOT, "brats", "train", resize=[9, 14, 8])
    label = torch.zeros(1, 12, 10, 8, dtype=torch.uint8)
    label[0, 3:8, 2:9, 1:6] = 3
    resized = Compose(parser.get_parsed_content("resized"))({"image": torch.rand(4, *label.shape[1:]), "label": label})
    assert resized["image"].shape == (4, 9, 14, 8) and resized["label"].shape == (1, 9, 14, 8)
    assert resized["label"].unique().tolist() == [0, 3]


def test_a_bad_case_is_reported_and_skipped_and_the_exit_status_is_not_0(patients, trained, tmp_path):
    data = tmp_path / "data"
    for case in find_cases(str(patients("brats2021")), COHORTS["brats2021"], FOUR).complete[:3]:
        (data / case.name).mkdir(parents=True)
        for path in case.images:
            (data / case.name / path.rsplit("/", 1)[1]).write_bytes(open(path, "rb").read())
    first, second, third = sorted(data.iterdir())
    cut = first / f"{first.name}_t1ce.nii.gz"
    cut.write_bytes(cut.read_bytes()[:3000])
    (second / f"{second.name}_t2.nii.gz").unlink()
    shutil.copytree(trained(BUNDLES[0]) / "models", tmp_path / "models")
    record = tmp_path / "models" / "settings.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "modality_dropout": 0}))
    done = run_in_a_process("inferring", BUNDLES[0], tmp_path, "brats2021", data)
    assert done.returncode == 1
    assert f"{first.name}: '{cut}' is incomplete or damaged" in done.stdout
    assert f"left out, {second.name}: {second.name}_t2.nii.gz is missing" in done.stdout
    assert "trained on complete cases, modality_dropout 0" in done.stdout
    assert "1 of 3 cases segmented" in done.stdout
    assert "Not all config files" not in done.stdout  # MONAI's, and args.yaml names what it misses
    assert [p.name for p in (tmp_path / "results" / "segmentations").glob("*.gz")] == [f"{third.name}.nii.gz"]


def test_a_training_reports_a_damaged_case_in_one_clear_sentence(patients, tmp_path):
    data = tmp_path / "data"
    for case in find_cases(str(patients("brats2021")), COHORTS["brats2021"], FOUR).complete:
        (data / case.name).mkdir(parents=True)
        for path in [*case.images, case.label]:
            (data / case.name / path.rsplit("/", 1)[1]).write_bytes(b"<html>Please log in</html>")
    done = run_in_a_process("training", BUNDLES[0], tmp_path, "brats2021", data)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "is a web page, not a scan; log in and download it again" in done.stderr


WRONG = [
    {"cohort": "brats1999"},
    {"size": "huge"},
    {"fold": 7},
    {"dataset_dir": "nowhere"},
    {"patch_size": [40, 40, 40]},
]


@pytest.mark.parametrize("setting", WRONG)
def test_a_wrong_setting_gives_one_clear_sentence(setting, patients, tmp_path):
    done = run("training", BUNDLES[0], tmp_path, **{"cohort": "brats2021", "data": patients("brats2021")} | setting)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")


def test_ctrl_c_stops_in_one_line_and_the_same_command_resumes(patients, tmp_path):
    command = arguments(
        "training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), epochs=40, iterations_per_epoch=3
    )
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (tmp_path / "models" / "last.ckpt").is_file():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert (
        process.returncode == 130 and "run the same command again to resume" in printed and "Traceback" not in printed
    )
    stopped = torch.load(tmp_path / "models" / "last.ckpt", weights_only=True)["engine"]["iteration"]
    assert 0 < stopped < 120 and stopped % 3 == 0
    epochs = stopped // 3 + 1
    data = patients("brats2021")
    printed = succeed("training", BUNDLES[0], tmp_path, "brats2021", data, epochs=epochs, iterations_per_epoch=3)
    assert f"at epoch {epochs}" in printed
    assert torch.load(tmp_path / "models" / "last.ckpt", weights_only=True)["engine"]["iteration"] == epochs * 3
    assert [int(row["epoch"]) for row in rows(tmp_path / "results" / "training.csv")] == list(range(1, epochs + 1))


def test_a_checkpoint_of_the_other_size_is_refused_with_one_clear_sentence(patients, trained):
    done = run("inferring", BUNDLES[0], trained(BUNDLES[0]), "brats2021", patients("brats2021"), size="full")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "size is full, but" in done.stderr and "trained with size fast" in done.stderr


def test_size_full_fewer_modalities_and_the_disk_cache_train(patients, tmp_path):
    settings = {"size": "full", "modalities": ["FLAIR", "T1", "T1ce"], "cache": "disk", "epochs": 1}
    succeed("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **settings)
    cached = sorted((tmp_path / "results" / "cache").iterdir())
    assert len(cached) == 5  # 4 for training and 1 for validation
    settings |= {"modalities": ["FLAIR", "T1"], "resume": False}
    succeed("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **settings)
    assert len(sorted((tmp_path / "results" / "cache").iterdir())) == 10  # old results are not used with other settings


def test_a_z_scored_patient_gives_the_same_label_map(patients, trained, tmp_path):
    """The background is then not 0: what the network gets is the same but for rounding."""
    case = find_cases(str(patients("brats2021")), COHORTS["brats2021"], FOUR).complete[0]
    data = tmp_path / "data"
    for name in ("plain", "scored"):
        (data / name).mkdir(parents=True)
        for path in case.images:
            image = nib.load(path)
            values = image.get_fdata()
            values = (values - values.mean()) / values.std() if name == "scored" else values
            target = data / name / path.rsplit("/", 1)[1].replace(case.name, name)
            nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine), target)
    succeed("inferring", BUNDLES[0], tmp_path, "brats2021", data, ckpt_dir=trained(BUNDLES[0]) / "models")
    maps = [nib.load(tmp_path / f"results/segmentations/{name}.nii.gz").get_fdata() for name in ("plain", "scored")]
    assert (maps[0] != maps[1]).mean() < 1e-4
    notes = json.loads((tmp_path / "results" / "runs" / "inferring.json").read_text())["notes"]
    assert any(note["case"] == "scored" and "taken for the background" in note["why"] for note in notes)


def test_a_training_whose_gradients_are_never_finite_stops_without_a_network(patients, tmp_path):
    settings = {"optimizer::lr": 1e30, "warmup": 0, "epochs": 1, "iterations_per_epoch": 30}
    done = run("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **settings)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "not finite in the last 20 steps" in done.stderr and "Lower learning_rate" in done.stderr
    assert not (tmp_path / "models" / "model.pt").exists()


def test_a_network_whose_weights_are_not_finite_is_not_kept(patients, tmp_path):
    settings = {"optimizer::lr": 1e30, "warmup": 0, "epochs": 3}  # too short for 20 skipped steps
    done = run("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **settings)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "not finite" in done.stderr
    assert not (tmp_path / "models" / "model.pt").exists()


def test_one_epoch_leaves_a_network(patients, tmp_path):
    settings = {"epochs": 1, "val_interval": 2}  # as on a CPU
    succeed("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **settings)
    assert (tmp_path / "models" / "model.pt").is_file()


@pytest.mark.parametrize(("run_id", "done"), [("inferring", "segmented"), ("evaluating", "scored")])
def test_a_case_too_large_for_the_gpu_is_left_out_and_the_others_are_done(run_id, done, patients, trained, tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("model.pt", "settings.json"):
        shutil.copy(trained(BUNDLES[0]) / "models" / name, tmp_path / "models")
    plain, calls = MixedPrecision.__call__, []

    def too_large(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixedPrecision, "__call__", too_large)
        end = run(run_id, BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), test_share=1.0)
    assert end.returncode == 1 and "Traceback" not in end.stderr and len(calls) == 6
    record = json.loads((tmp_path / f"results/runs/{run_id}.json").read_text())
    (left_out,) = record["left_out"]
    assert "memory of the GPU" in left_out["why"] and left_out["case"] not in [case["name"] for case in record["cases"]]
    assert len(record["cases"]) == 5 == len(list((tmp_path / "results/segmentations").glob("*.nii.gz")))
    assert record["state"] == "finished" and f"5 of 6 cases {done}" in end.stdout


def test_mlflow_tracks_a_training(patients, tmp_path):
    pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    data = patients("brats2021")
    succeed("training", BUNDLES[0], tmp_path, "brats2021", data, tracking="mlflow", tracking_uri=uri, epochs=1)
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    (tracked,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert np.isfinite(tracked.data.metrics["dice_WT"])
