"""An interrupted segmenting continues with the cases that have no label map yet, and with no others."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.conftest import BUNDLES, ROOT, arguments, succeed
from tests.members import member

pytestmark = pytest.mark.usefixtures("at_the_root")


def infer(folder, data, **settings):
    succeed("inferring", BUNDLES[0], folder, "brats2021", data, **settings)
    return stamps(folder)


def stamps(folder):
    """The time at which each label map was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "results" / "segmentations").glob("*.nii.gz")}


def record(folder):
    return folder / "results" / "runs" / "inferring.json"


@pytest.fixture
def interrupted(patients, tmp_path):
    """The folder of a run that was interrupted after four of six cases."""
    member(tmp_path / "models", BUNDLES[0])
    infer(tmp_path, patients("brats2021"))
    content = json.loads(record(tmp_path).read_text())
    record(tmp_path).write_text(json.dumps({**content, "state": "not finished", "cases": []}))
    for path in sorted((tmp_path / "results" / "segmentations").glob("*.nii.gz"))[4:]:
        path.unlink()
    return tmp_path


def test_the_same_command_segments_what_is_missing_and_records_all(interrupted, patients):
    before = stamps(interrupted)
    after = infer(interrupted, patients("brats2021"))
    assert len(before) == 4 and len(after) == 6 and before.items() <= after.items()
    content = json.loads(record(interrupted).read_text())
    assert content["state"] == "finished" and len(content["cases"]) == 6


def test_nothing_is_left_to_do_if_every_label_map_exists(interrupted, patients):
    infer(interrupted, patients("brats2021"))
    content = json.loads(record(interrupted).read_text())
    record(interrupted).write_text(json.dumps({**content, "state": "not finished"}))
    before = stamps(interrupted)
    assert infer(interrupted, patients("brats2021")) == before
    assert json.loads(record(interrupted).read_text())["state"] == "finished"


def test_probabilities_are_continued_too_and_label_maps_of_an_earlier_run_are_not_used(interrupted, patients):
    """A finished run, then one with probabilities that was interrupted after two of six cases."""
    data, folder = patients("brats2021"), interrupted / "results" / "segmentations_probabilities"
    infer(interrupted, data)
    earlier = stamps(interrupted)
    infer(interrupted, data, probabilities=True)
    content = json.loads(record(interrupted).read_text())
    record(interrupted).write_text(json.dumps({**content, "state": "not finished", "cases": []}))
    for name in sorted(earlier)[2:]:  # still those of the first run
        os.utime(interrupted / "results" / "segmentations" / name, ns=(earlier[name], earlier[name]))
        (folder / name.replace(".nii.gz", "_WT.nii.gz")).unlink()
    before = stamps(interrupted)
    after = infer(interrupted, data, probabilities=True)
    assert [name for name in sorted(after) if after[name] == before[name]] == sorted(after)[:2]
    assert len(list(folder.glob("*.nii.gz"))) == 3 * 6
    record(interrupted).write_text(json.dumps({**content, "state": "not finished", "cases": []}))
    assert infer(interrupted, data, probabilities=True) == after  # also of a run that was continued


def test_a_finished_run_is_repeated(interrupted, patients):
    before = infer(interrupted, patients("brats2021"))
    after = infer(interrupted, patients("brats2021"))
    assert before.keys() == after.keys() and not {*before.values()} & {*after.values()}


@pytest.mark.parametrize("change", ["weights", "setting", "data", "scan"])
def test_other_weights_settings_or_data_repeat_every_case(change, interrupted, patients, tmp_path_factory):
    data, settings, repeated = patients("brats2021"), {}, 4
    if change == "weights":
        member(interrupted / "models", BUNDLES[0], seed=1)
    elif change == "setting":
        settings["mirror"] = True
    elif change == "data":
        link = tmp_path_factory.mktemp("elsewhere") / "data"
        subprocess.run(["cp", "-r", "--preserve=timestamps", str(data), str(link)], check=True)
        data = link
    else:
        scan = next((data / sorted(stamps(interrupted))[0][:-7]).glob("*_t1.nii.gz"))
        os.utime(scan)
        repeated = 1
    before = stamps(interrupted)
    after = infer(interrupted, data, **settings)
    assert sum(after[name] != before[name] for name in before) == repeated


def test_a_killed_run_continues(patients, tmp_path):
    member(tmp_path / "models", BUNDLES[0])
    data = patients("brats2021")
    command = arguments("inferring", BUNDLES[0], tmp_path, "brats2021", data, mirror=True, overlap=0.9)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not stamps(tmp_path):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = stamps(tmp_path)
    after = infer(tmp_path, data, mirror=True, overlap=0.9)
    assert 0 < len(before) < len(after) == 6 and before.items() <= after.items()
