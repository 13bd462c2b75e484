"""An interrupted segmenting or scoring does only what is left, and gives what an uninterrupted one gives."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
from ignite.engine import Engine
from tumour.cases.find import find_cases
from tumour.files import size_and_times
from tumour.runs import finished as module

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, arguments, forked, here
from tests.members import member

pytestmark = pytest.mark.usefixtures("at_the_root")
RUNS = ("inferring", "evaluating")
both = pytest.mark.parametrize("run_id", RUNS)
CASES = 6
UNFIT = {"run": 1, "state": "x", "notes": [{"case": "a"}], "rows": [1], "lesions": {}, "quality": {"case": 1}}


def command(run_id, folder, data, **settings):
    settings = {"test_share": 1.0, "after_treatment::smallest_piece": {"ET": 1}, **settings}
    return arguments(run_id, BUNDLES[0], folder, "brats2021", data, **settings)


def go(run_id, folder, data, **settings):
    done = here(command(run_id, folder, data, **settings))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def stamps(folder):
    """The time at which each label map was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "results" / "segmentations").glob("*.nii.gz")}


def results(folder):
    """Every result of a run that does not depend on the time."""
    found = {path.name: path.read_bytes() for path in sorted((folder / "results").rglob("*.nii.gz"))}
    found |= {path.name: path.read_bytes() for path in sorted((folder / "results" / "scores").glob("*"))}
    for path in (folder / "results" / "runs").glob("*.json"):
        record = json.loads(path.read_text())
        found |= {"notes": sorted(map(str, record["notes"])), "cases": sorted(map(str, record["cases"]))}
        found["state"] = record["state"]
    if (folder / "models" / "scores.json").is_file():
        found["scores.json"] = (folder / "models" / "scores.json").read_bytes()
    return found


def left_over(folder):
    return [str(path) for path in folder.rglob(".*")] + [str(path) for path in (folder / "results/runs").glob("*/*")]


def stopped_after(cases, run_id, folder, data, **settings):
    """Stop a run as kill -9 does, after a number of cases."""

    def run():
        fire, done = Engine._fire_event, []

        def stop(self, event, *args, **kwargs):
            fire(self, event, *args, **kwargs)
            if event.name == "ITERATION_COMPLETED":
                done.append(1)
                if len(done) == cases:
                    os.kill(os.getpid(), signal.SIGKILL)

        Engine._fire_event = stop
        return here(command(run_id, folder, data, **settings)).returncode

    assert os.waitstatus_to_exitcode(os.waitpid(forked(run), 0)[1]) == -signal.SIGKILL


@pytest.fixture(scope="module")
def complete(patients, tmp_path_factory):
    """The folder of an uninterrupted run, by its run id."""
    folders = {}
    for run_id in RUNS:
        folders[run_id] = tmp_path_factory.mktemp(run_id)
        member(folders[run_id] / "models", BUNDLES[0])
        go(run_id, folders[run_id], patients("brats2021"))
    return folders


@pytest.fixture(scope="module")
def stopped(patients, tmp_path_factory):
    """A copy of the folder of a run that was killed after two cases."""
    folders = {}
    for run_id in RUNS:
        folders[run_id] = tmp_path_factory.mktemp(f"stopped-{run_id}")
        member(folders[run_id] / "models", BUNDLES[0])
        stopped_after(2, run_id, folders[run_id], patients("brats2021"))

    def copy(run_id, target):
        return shutil.copytree(folders[run_id], target, dirs_exist_ok=True)  # with the times of its files

    return copy


@both
def test_the_same_command_does_what_is_left_and_gives_what_an_uninterrupted_run_gives(
    run_id, complete, stopped, patients, tmp_path
):
    folder = stopped(run_id, tmp_path)
    before = stamps(folder)
    kept = sorted((folder / "results" / "runs" / run_id).glob("*.json"))[0]
    content, note = json.loads(kept.read_text()), {"case": kept.stem, "why": "it looks odd"}
    kept.write_text(json.dumps(content | {"notes": [*content["notes"], note]}))
    printed = go(run_id, folder, patients("brats2021"))
    after = stamps(folder)
    assert len(before) == 2 and len(after) == CASES and before.items() <= after.items()
    found, expected = results(folder), results(complete[run_id])
    assert found.pop("notes") == sorted([*expected.pop("notes"), str(note)])
    assert f"{kept.stem}: it looks odd." in printed
    assert found == expected
    verb = {"inferring": "segmented", "evaluating": "scored"}[run_id]
    assert f"2 of {CASES} cases were finished before" in printed and f"{CASES} of {CASES} cases {verb}" in printed
    assert left_over(folder) == []  # so the same command would do every case again


@pytest.fixture
def finished(stopped, patients, tmp_path, monkeypatch):
    """The cases of a stopped run that count as finished for a command, which by default is the same."""
    folder, data = stopped("evaluating", tmp_path / "run"), patients("brats2021")
    monkeypatch.setattr(module, "started_by_monai", lambda: True)
    cases = find_cases(str(data), COHORTS["brats2021"], FOUR).complete

    def finished(*words, cases=cases, data=data, device="cpu", precision="float32", resume=True):
        monkeypatch.setattr("sys.argv", ["monai.bundle", *command("evaluating", folder, data)[3:], *words])
        results, weights = folder / "results", str(folder / "models" / "model.pt")
        where = str(results / "runs" / "evaluating"), cases, str(results / "segmentations"), weights, str(data)
        return sorted(module.FinishedCases(*where, device, precision, resume))

    finished.folder, finished.cases = folder, cases
    return finished


def test_a_run_with_the_same_inputs_and_settings_continues_on_any_number_of_devices(finished):
    two = sorted(name.removesuffix(".nii.gz") for name in stamps(finished.folder))
    assert finished() == two and len(two) == 2
    assert finished("--+config_file", "['bundles/common/multi_gpu_evaluate.yaml']") == two
    assert finished("--device", "cpu", "--resume", "yes") == two


def test_other_weights_settings_devices_or_data_begin_again(finished, patients, tmp_path):
    assert finished(resume=False) == finished(device="cuda") == finished(precision="bfloat16") == []
    assert finished("--overlap", "0.25") == finished("--challenge", "glioma2023") == finished(data=tmp_path) == []
    record = finished.folder / "models" / "settings.json"
    settings = record.read_text()
    record.write_text(json.dumps(json.loads(settings) | {"modality_dropout": 0.5}))
    assert finished() == []
    record.write_text(settings)
    assert len(finished()) == 2
    member(finished.folder / "models", BUNDLES[0], seed=1)
    assert finished() == []


def test_a_case_whose_files_or_label_map_changed_or_whose_record_is_damaged_is_repeated(finished, tmp_path):
    first, second = finished()
    case = next(case for case in finished.cases if case.name == first)
    copies = {kind: shutil.copy2(file, tmp_path) for kind, file in case.files.items()}
    moved = replace(case, images=tuple(copies[kind] for kind in case.modalities), label=copies["label"])
    assert finished(cases=[moved]) == []
    record = finished.folder / "results" / "runs" / "evaluating" / f"{first}.json"
    for file in (copies["label"], copies["T1"]):
        content = json.loads(record.read_text())
        content["state"][:-1] = [size_and_times(each) for each in moved.files.values()]
        record.write_text(json.dumps(content))
        assert finished(cases=[moved]) == [first]
        stat = os.stat(file)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # an edit that keeps the time
        assert finished(cases=[moved]) == []
    os.utime(finished.folder / "results" / "segmentations" / f"{first}.nii.gz")
    assert finished() == [second]
    record = record.with_name(f"{second}.json")
    content = json.loads(record.read_text())
    for damaged in ('{"run": ', *(json.dumps(content | {name: value}) for name, value in UNFIT.items())):
        record.write_text(damaged)
        assert finished() == []


def test_other_code_or_another_after_treatment_under_the_same_name_begins_again(finished, tmp_path, monkeypatch):
    def run():
        finished("--after_treatment", f"%{tmp_path / 'fitted.json'}")  # this is now the command line
        return module._run("none/model.pt", "", "cpu", "float32")

    runs = []
    for threshold in (0.4, 0.6):
        (tmp_path / "fitted.json").write_text(json.dumps({"threshold": {"ET": threshold}}))
        runs.append(run())
    monkeypatch.setattr(module, "hash_of_code", lambda: "of another version")
    assert len({*runs, run()}) == 3


def test_an_after_treatment_that_was_fitted_since_then_begins_again(finished, tmp_path):
    finished()  # this is now the command line
    before = module._run(str(tmp_path / "model.pt"), "", "cpu", "float32")
    (tmp_path / "after_treatment.json").write_text(json.dumps({"threshold": {"ET": 0.4}}))
    assert module._run(str(tmp_path / "model.pt"), "", "cpu", "float32") != before


@pytest.mark.parametrize("run_id", ["inferring"])
def test_ctrl_c_gives_one_sentence_and_the_next_run_continues(run_id, patients, tmp_path):
    member(tmp_path / "models", BUNDLES[0])
    data, said = patients("brats2021"), tmp_path / "said"

    def run():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        done = here(command(run_id, tmp_path, data, overlap=0.9))
        said.write_text(done.stderr)
        return done.returncode

    process = forked(run)
    while not [*tmp_path.glob("results/runs/*/*.json")]:
        time.sleep(0.02)
    os.kill(process, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert said.read_text().strip().endswith("error: stopped; run the same command again to continue.")
    assert "Traceback" not in said.read_text()
    before = stamps(tmp_path)
    assert "were finished before" in go(run_id, tmp_path, data, overlap=0.9)
    assert left_over(tmp_path) == [] and len(stamps(tmp_path)) == CASES
    assert sum(stamps(tmp_path)[name] == before[name] for name in before) >= 1
