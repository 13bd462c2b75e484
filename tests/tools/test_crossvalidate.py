"""Each patient is scored once, by a network that did not use it for training or selection."""

import json
import shutil
import sys
from dataclasses import asdict
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from tumour.cases.case import Case
from tumour.errors import InputError, OptionError
from tumour.files import save_json
from tumour.maps.aftertreatment import KINDS, treatment_of
from tumour.records import read_table
from tumour.runs.checkpoints import to_float16
from tumour.scores.quality import Quality, quality_of
from tumour.scores.tables import mean_interval

from tests.conftest import BUNDLES, TINY, here, run, succeed
from tests.scores.test_quality import scored
from tools import crossvalidate as module
from tools.crossvalidate import crossvalidate, data_set_of, final, row_of
from tools.ensemble import ensemble
from tools.patients.synthetic import make_patients
from tools.quality import settings_for
from tools.release.pack import content
from tools.results import results
from tools.show import merged
from tools.started import hash_of

FOLDS = 3


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, at_the_root):
    """The runs of the folds in the process of the test; the list of their run ids and folds."""
    runs = []

    def start(command):
        runs.append((command[4], command[command.index("--fold") + 1]))
        return here(command).returncode

    monkeypatch.setattr(module, "status_of", start)
    return runs


@pytest.fixture(scope="session")
def two_sets(tmp_path_factory):
    """A folder with two data sets, of four and three patients; the first is a link."""
    folder = tmp_path_factory.mktemp("both")
    make_patients(tmp_path_factory.mktemp("elsewhere"), cases=4, size=40)
    (folder / "glioma").symlink_to(tmp_path_factory.getbasetemp() / "elsewhere0")
    make_patients(folder / "others" / "more", cases=7, size=40)
    for case in sorted((folder / "others" / "more").iterdir())[:4]:
        shutil.rmtree(case)
    return folder


@pytest.fixture(scope="session")
def crossvalidated(two_sets, tmp_path_factory):
    """The arguments and folder of a finished cross-validation."""
    folder = tmp_path_factory.mktemp("crossvalidation")
    given = {"bundle": BUNDLES[0], "cohort": "brats2021", "dataset_dir": str(two_sets), "folds": FOLDS, **TINY}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module.__file__.rsplit("/", 2)[0])
        patch.setattr(module, "status_of", lambda command: here(command).returncode)
        text = crossvalidate(output=str(folder), **given)
    return given, folder, text


@pytest.fixture
def copy(crossvalidated, tmp_path):
    """The arguments of a finished cross-validation, and a copy of its folder."""
    given, folder, _ = crossvalidated
    shutil.copytree(folder, tmp_path / "copy")
    return given, tmp_path / "copy"


def people(folder, fold):
    return json.loads((folder / f"fold{fold}" / "models" / "patients.json").read_text())


def test_each_patient_is_scored_once_by_the_network_of_its_fold(crossvalidated):
    _, folder, _ = crossvalidated
    scores = read_table(folder / "scores.csv").set_index(["case", "kind", "region"])
    assert scores.index.is_unique and scores.index.unique("case").size == 7
    seen = []
    for fold in range(FOLDS):
        parts, own = people(folder, fold), read_table(folder / f"fold{fold}" / "results" / "scores" / "scores.csv")
        assert sorted(own["case"].unique()) == parts["test"] and parts["validate"] == []
        assert len(parts["train"]) + len(parts["test"]) == 7 and not {*parts["train"]} & {*parts["test"]}
        pd.testing.assert_frame_equal(own.set_index(["case", "kind", "region"]), scores.loc[parts["test"]])
        seen += parts["test"]
    assert len(seen) == len({*seen}) == 7
    assert len([*(folder / "segmentations").glob("*.nii.gz")]) == 7


@pytest.mark.parametrize("fold", range(FOLDS))
def test_the_last_weights_are_scored_whichever_epoch_validated_best(crossvalidated, fold):
    _, folder, _ = crossvalidated
    models = folder / f"fold{fold}" / "models"
    kept, last = (torch.load(models / name, weights_only=True) for name in ("model.pt", "last.ckpt"))
    expected = to_float16(last["network"])
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_the_table_has_all_patients_each_data_set_and_each_fold_with_intervals(crossvalidated):
    _, folder, text = crossvalidated
    first, calibration = text.split("\n\n")[1::2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in first.splitlines()]
    table = pd.DataFrame(rows[2:], columns=rows[0]).set_index("patients")
    assert table.index.tolist() == ["all of brats2021", "glioma", "others", "fold 0", "fold 1", "fold 2"]
    assert table["scans"].tolist()[:3] == ["7", "4", "3"]
    scores = read_table(folder / "scores.csv")
    wt = scores[scores["region"] == "WT"].set_index("case")["dice"]
    low, high = mean_interval(wt.to_numpy())
    assert table["Dice WT"].iloc[0] == f"{wt.mean():.3f} ({low:.3f} to {high:.3f})"
    others = [case for case in wt.index if case not in people(folder, 0)["train"]]
    assert table.loc["fold 0", "Dice WT"].startswith(f"{wt[others].mean():.3f} (")
    assert (folder / "crossvalidation.md").read_text() == text + "\n"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["folds"] == FOLDS and [row["region"] for row in summary["calibration"]] == ["TC", "WT", "ET"]
    assert "ACE before" in calibration and not (folder / "quality.json").exists()  # seven cases are too few
    for fold in range(FOLDS):
        evidence = json.loads((folder / f"fold{fold}" / "results" / "evidence.json").read_text())
        assert sorted(evidence) == people(folder, fold)["test"]


def test_a_row_has_the_mean_of_each_region_and_that_of_the_cases_over_their_regions():
    rows = [("a", "WT", 0.9, 2.0), ("a", "ET", 0.5, 4.0), ("b", "WT", 0.7, 4.0), ("b", "ET", np.nan, np.nan)]
    frame = pd.DataFrame(rows, columns=["case", "region", "dice", "hd95"]).assign(kind="region")
    frame.loc[4] = ["a", "oedema", 0.0, 99.0, "class"]
    row = row_of("all", frame)
    assert row["scans"] == "2" and row["Dice WT"].startswith("0.800 (") and row["Dice ET"].startswith("0.500 (")
    assert row["mean Dice"] == "0.700 (0.700 to 0.700)" and row["HD95, mm"] == "WT 3.0, ET 4.0"


@pytest.mark.parametrize(
    ("image", "name"), [("x/case/t1.nii", "x"), ("x/y/case/t1.nii", "x"), ("case/t1.nii", "no folder")]
)
def test_a_data_set_is_the_folder_that_holds_the_folders_of_its_cases(image, name, tmp_path):
    assert data_set_of(str(tmp_path / image), str(tmp_path)) == name


def test_a_second_call_finishes_what_was_stopped_and_repeats_nothing(copy, crossvalidated, in_this_process):
    given, folder = copy
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "fold2")
    (folder / "fold1" / "results" / "scores" / "summary.json").unlink()  # stopped before it was scored
    assert crossvalidate(output=str(folder), **given) == crossvalidated[2]
    assert in_this_process == [("crossvalidating", "1"), ("crossvalidating", "2")]


def test_a_model_of_the_quality_next_to_the_weights_of_a_fold_does_not_change_what_is_collected(copy, crossvalidated):
    given, folder = copy
    results, checkpoint = folder / "fold1" / "results", folder / "fold1" / "models" / "model.pt"
    Quality.fit([scored(number) for number in range(10)], {}).save(checkpoint)
    for path in (results / "evidence.json", results / "scores" / "summary.json"):
        path.unlink()
    (folder / "quality.json").touch()  # of an earlier collection
    assert crossvalidate(output=str(folder), **given) == crossvalidated[2]
    assert not (folder / "quality.json").exists()  # seven patients are too few for a model


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"epochs": 3}, "epochs = 2, but epochs is now 3"),
        ({"folds": 2}, "folds = 3, but folds is now 2"),
        ({"overlap": 0.5}, "overlap = 0, but overlap is now 0.5"),
        ({"network_def::network::res_block": True}, "network_def"),
        ({"bundle": BUNDLES[1]}, "args_file"),
    ],
)
def test_other_settings_are_refused_with_both_values(copy, changed, part, in_this_process):
    given, folder = copy
    for call in (crossvalidate, final):
        with pytest.raises(InputError, match=part):
            call(output=str(folder), **{**given, **changed})
    assert in_this_process == []


def test_other_patients_are_refused_by_name(copy, two_sets, tmp_path, in_this_process):
    given, folder = copy
    shutil.copytree(two_sets, tmp_path / "data")
    same = {**given, "dataset_dir": str(tmp_path / "data")}  # the same data elsewhere is not another training
    crossvalidate(output=str(folder), **same)
    gone = sorted((tmp_path / "data" / "glioma").iterdir())[0]
    shutil.rmtree(gone)
    with pytest.raises(InputError, match=f"other patients: {gone.name} removed, none added"):
        crossvalidate(output=str(folder), **same)
    assert in_this_process == []


def test_a_fold_has_scores_only_after_all_that_is_collected_of_it(at_the_root):
    """A fold with scores is not repeated, so one that is killed between two files would lack the other."""
    names = [
        each["_target_"].split(".")[-1] for each in merged(f"bundles/{BUNDLES[0]}/args.yaml")["evaluate::handlers"]
    ]
    assert names.index("ScoreCases") > max(names.index("KeepEvidence"), names.index("JudgeCases"))


def test_another_label_and_a_scan_of_another_size_are_other_files(tmp_path):
    files = [tmp_path / name for name in ("t1.nii", "t2.nii", "seg.nii")]
    case, found = Case("a", "a", (str(files[0]), str(files[1])), ("T1", "T2"), str(files[2])), set()
    for contents in ("000", "001", ("00", "0", "1"), ("00", "00", "1")):
        for file, text in zip(files, contents, strict=True):
            file.write_text(text)
        found.add(hash_of(case))
    assert len(found) == 4 and hash_of(case) in found


def test_corrected_labels_are_refused_by_name_and_not_mixed_with_the_scores_of_the_old_ones(copy, two_sets, tmp_path):
    given, folder = copy
    shutil.copytree(two_sets, tmp_path / "data")
    same = {**given, "dataset_dir": str(tmp_path / "data")}
    label = next((tmp_path / "data" / "others").rglob("*_seg.nii.gz"))
    image = nib.load(label)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), label)  # type: ignore[attr-defined]
    for call in (crossvalidate, final):
        with pytest.raises(InputError, match=f"other files of {label.parent.name}; restore its label and scans"):
            call(output=str(folder), **same)


def test_a_setting_out_of_range_ends_it_before_any_work(two_sets, tmp_path, in_this_process):
    with pytest.raises(InputError, match="batch_size"):
        crossvalidate("unet3d", str(two_sets), str(tmp_path / "out"), "brats2021", 2, batch_size=0)
    with pytest.raises(InputError, match="There is no patient to validate on in fold 7"):
        crossvalidate("unet3d", str(two_sets), str(tmp_path / "out"), "brats2021", 9)
    assert in_this_process == [] and not (tmp_path / "out").exists()


def test_what_would_train_or_select_a_network_on_the_patients_that_it_scores_ends_it_before_any_work(
    two_sets, crossvalidated, tmp_path, in_this_process
):
    given, out = ("unet3d", str(two_sets), str(tmp_path / "out"), "brats2021", 2), tmp_path / "out"
    with pytest.raises(OptionError, match="--keep best would select the weights on the patients of the fold"):
        crossvalidate(*given, keep="best")
    with pytest.raises(OptionError, match="4 of 7 patients, e.g. .* could not be scored; leave --start_from out"):
        crossvalidate(*given, start_from=str(crossvalidated[1] / "fold0" / "models"))
    record = json.loads((crossvalidated[1] / "fold0" / "models" / "patients.json").read_text())
    named = {part: [f"HGG_{patient}" for patient in patients] for part, patients in record.items()}  # after a folder
    (tmp_path / "patients.json").write_text(json.dumps(named))
    (tmp_path / "model.pt").touch()
    with pytest.raises(OptionError, match="4 of 7 patients, e.g. .* could not be scored; leave --start_from out"):
        crossvalidate(*given, start_from=str(tmp_path))
    assert in_this_process == [] and not out.exists()


def test_folds_are_not_continued_from_other_weights_and_take_a_config_file_of_the_user(
    two_sets, tmp_path, monkeypatch, in_this_process
):
    start, file, commands = tmp_path / "start", "bundles/common/augment_on_device.yaml", []
    start.mkdir()
    monkeypatch.setattr(module, "status_of", commands.append)
    given = {"bundle": "unet3d", "dataset_dir": str(two_sets), "output": str(tmp_path / "out"), "folds": 2}
    with pytest.raises(OptionError, match="start/model.pt' does not exist; give the folder of a model.pt"):
        crossvalidate(**given, start_from=str(start))
    (start / "model.pt").write_bytes(b"first")
    with pytest.raises(InputError, match="run crossvalidating"):
        crossvalidate(**given, start_from=str(start), **{"+config_file": file})
    assert str([file, module.OVERLAY]) in commands[0]
    (start / "model.pt").write_bytes(b"second")
    with pytest.raises(OptionError, match="was started from other weights, or from random ones; set start_from back"):
        crossvalidate(**given, start_from=str(start), **{"+config_file": file})


def test_a_fold_that_fails_ends_it_with_its_command(two_sets, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "status_of", lambda _: 1)
    with pytest.raises(InputError, match="run crossvalidating .* ended with status 1"):
        crossvalidate("unet3d", str(two_sets), str(tmp_path / "out"), "brats2021", 2)


def test_each_fold_is_a_job_of_submitit(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed; it is needed only for CLUSTER=")
    places = [module.scores_in(module.folder_of(tmp_path, fold)) for fold in range(2)]
    commands = {n: ["sh", "-c", f"mkdir -p {path.parent} && touch {path}"] for n, path in enumerate(places)}
    module.run_on_cluster(commands, tmp_path / "jobs", "local", "timeout_min=5")
    assert all(path.is_file() for path in places)
    assert json.loads((tmp_path / "jobs" / "jobs.json").read_text()).keys() == {"0", "1"}
    with pytest.raises(InputError, match="fold 2 was not scored; see .*log.err"):
        module.run_on_cluster({2: ["false"]}, tmp_path / "jobs", "local", "")


def test_only_folds_that_are_not_done_become_jobs_with_their_plain_commands(copy, crossvalidated, monkeypatch):
    given, folder = copy
    shutil.rmtree(folder / "fold1")
    asked = []

    def submit(commands, *rest):
        asked.append((commands, *rest))
        for command in commands.values():
            assert here(command).returncode == 0

    monkeypatch.setattr(module, "run_on_cluster", submit)
    assert crossvalidate(output=str(folder), cluster="slurm", cluster_options="x=1", **given) == crossvalidated[2]
    assert [[*commands] for commands, *_ in asked] == [[1]] and asked[0][1:] == (folder / "jobs", "slurm", "x=1")


class Jobs:
    """Stands for submitit with a cluster whose jobs run until they are waited for."""

    def __init__(self, folder):
        self.folder, self.submitted, self.waited = folder, [], []
        self.LocalJob, self.SlurmJob = None, self.job
        self.helpers = SimpleNamespace(CommandFunction=lambda command: command)

    def AutoExecutor(self, folder, cluster):
        return SimpleNamespace(update_parameters=lambda **given: self.submitted.append(given), submit=self.submit)

    def submit(self, command):
        self.submitted.append(command)
        return self.job(self.folder, str(len(self.submitted)))

    def job(self, folder, number):
        def wait():
            self.waited.append(number)
            save_json({}, self.folder / "fold0" / "results" / "scores" / "summary.json")

        logs = SimpleNamespace(stdout="out", stderr="err")
        return SimpleNamespace(job_id=number, done=lambda: number in self.waited, wait=wait, paths=logs)


def test_a_job_that_still_runs_is_waited_for_and_another_is_submitted_again(monkeypatch, tmp_path):
    jobs = Jobs(tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", jobs)
    save_json({"0": "41"}, tmp_path / "jobs" / "jobs.json")  # submitted by an earlier call
    module.run_on_cluster({0: ["run"]}, tmp_path / "jobs", "slurm", "gpus_per_node=2 slurm_partition=gpu")
    assert jobs.waited == ["41"] and jobs.submitted == [
        {"name": "fold", "timeout_min": 24 * 60, "gpus_per_node": 2, "slurm_partition": "gpu"}
    ]
    with pytest.raises(InputError, match="fold 1 was not scored; see 'err' and 'out'"):
        module.run_on_cluster({0: ["run"], 1: ["fail"]}, tmp_path / "jobs", "slurm", "")
    assert jobs.submitted[2:] == [["run"], ["fail"]]
    with pytest.raises(InputError, match="cluster must be one of slurm, local; it is 'moon'"):
        module.run_on_cluster({0: ["run"]}, tmp_path / "jobs", "moon", "")


def test_a_cluster_without_submitit_is_refused_with_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="pip install submitit"):
        module.run_on_cluster({}, tmp_path, "slurm", "")


def test_one_fold_is_one_plain_command_of_monai(crossvalidated, tmp_path):
    given, folder, _ = crossvalidated
    settings = {name: value for name, value in given.items() if name not in ("bundle", "cohort", "dataset_dir")}
    overlay = {"+config_file": "['bundles/common/crossvalidate.yaml']", "fold": 1}
    succeed("crossvalidating", given["bundle"], tmp_path, "brats2021", given["dataset_dir"], **overlay, **settings)
    ours, theirs = (f / "results/scores/scores.csv" for f in (tmp_path, folder / "fold1"))
    assert ours.read_text() == theirs.read_text()


def test_patients_of_a_network_trained_on_them_are_never_collected(copy):
    given, folder = copy
    record = people(folder, 0)
    (folder / "fold0/models/patients.json").write_text(
        json.dumps({**record, "train": record["train"] + record["test"]})
    )
    with pytest.raises(InputError, match="is scored by a network that was trained on it"):
        crossvalidate(output=str(folder), **given)


def test_cases_that_a_fold_left_out_are_listed_with_the_reason(copy, crossvalidated):
    given, folder = copy
    path = folder / "fold1" / "results" / "runs" / "evaluating.json"
    save_json({**json.loads(path.read_text()), "left_out": [{"case": "P7", "why": "its T1 is empty"}]}, path)
    text = crossvalidate(output=str(folder), **given)
    assert text == f"{crossvalidated[2]}\n\nLeft out, P7: its T1 is empty."


def test_the_final_network_is_trained_on_all_patients_and_its_card_gives_the_score_of_the_folds(copy, in_this_process):
    given, folder = copy
    settings = settings_for(json.loads((folder / "settings.json").read_text()))
    quality = Quality.fit([scored(number) for number in range(10)], settings)
    save_json(asdict(quality), folder / "quality.json")
    assert "trained on all patients" in final(output=str(folder), **given)
    found = quality_of(str(folder / "final" / "models" / "model.pt"), mirror=False)
    assert found and found.regions == quality.regions and found.settings == settings
    assert in_this_process == [("training", "all")]
    used = json.loads((folder / "final" / "models" / "patients.json").read_text())
    assert len(used["train"]) == 7 and used["validate"] == used["test"] == []
    models = folder / "final" / "models"
    kept, last = (torch.load(models / name, weights_only=True) for name in ("model.pt", "last.ckpt"))
    assert all(torch.equal(kept[name], value) for name, value in to_float16(last["network"]).items())
    scores = read_table(folder / "scores.csv")
    dice = scores[scores["region"] == "WT"]["dice"].mean()
    files = content(given["bundle"], models / "model.pt")
    assert files["models/quality.json"] == (models / "quality.json").read_bytes()
    card = files["docs/README.md"].decode()
    assert "| 7, read as brats2021, cross-validation in 3 folds |" in card and f"{dice:.3f} (" in card
    assert "not scored yet" not in card and "Cross-validation: the scores of networks" in card
    metrics = json.loads(files["configs/metadata.json"])["eval_metrics"]
    assert metrics["brats2021, cross-validation"]["dice_WT"] == pytest.approx(dice, abs=1e-4)


def test_the_final_network_keeps_the_after_treatment_that_the_folds_were_scored_with(copy):
    given, folder = copy
    option, values = "after_treatment::smallest_piece", {"WT": 9}
    before = json.loads((folder / "settings.json").read_text())
    save_json({**before, option: values}, folder / "settings.json")
    final(output=str(folder), **given, **{option: values})
    models = str(folder / "final" / "models")
    assert [treatment_of(kind, models) for kind in KINDS] == [{}, values, {}]


def test_a_final_network_before_the_folds_are_done_is_refused(copy):
    given, folder = copy
    (folder / "summary.json").unlink()
    with pytest.raises(InputError, match="finish the cross-validation first"):
        final(output=str(folder), **given)


def test_a_damaged_model_of_the_quality_is_noticed_before_the_final_training(copy, in_this_process):
    given, folder = copy
    (folder / "quality.json").write_text('{"low": NaN}')
    with pytest.raises(InputError, match="quality.json' is not what it should be"):
        final(output=str(folder), **given)
    assert in_this_process == []


def test_an_ensemble_of_all_folds_has_their_score_and_one_of_some_has_not(crossvalidated, tmp_path):
    _, folder, _ = crossvalidated
    members = [f"{folder}/fold{fold}/models" for fold in range(FOLDS)]
    ensemble(f"'{folder}/fold*/models'", str(tmp_path / "all"))
    ensemble(" ".join(members[:2]), str(tmp_path / "some"))
    assert "7, read as brats2021, cross-validation in 3 folds" in results({"unet3d": tmp_path / "all" / "model.pt"})
    assert "cross-validation" not in results({"unet3d": tmp_path / "some" / "model.pt"})


def test_fold_all_alone_leaves_the_test_share_out(patients, tmp_path):
    data = patients("brats2021")
    succeed("training", BUNDLES[0], tmp_path, "brats2021", data, fold="all", epochs=1)
    used = json.loads((tmp_path / "models" / "patients.json").read_text())
    assert (len(used["train"]), len(used["validate"]), len(used["test"])) == (5, 0, 1)
    succeed("evaluating", BUNDLES[0], tmp_path, "brats2021", data, fold="all")
    assert read_table(tmp_path / "results/scores/scores.csv")["case"].unique().tolist() == used["test"]
    done = run("fitting", BUNDLES[0], tmp_path, "brats2021", data, fold="all")
    assert done.returncode and "used for model selection" in done.stderr


def test_the_report_shows_the_cross_validation(crossvalidated, copy):
    given, folder = copy
    places = {
        "ckpt_dir": folder / "none",
        "output_dir": folder,
        "scores": folder,
        "segmentations": folder / "segmentations",
    }
    succeed("reporting", given["bundle"], folder, "brats2021", given["dataset_dir"], **places)
    page = (folder / "report" / "report.html").read_text()
    assert "Cross-validation in 3 folds" in page and "<td>glioma</td>" in page and "cross-validation, 3 folds" in page
    assert np.all([f'data-case="{case}"' in page for case in read_table(folder / "scores.csv")["case"]])
