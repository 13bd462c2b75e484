"""A run writes only where it may: into folders that can be written to, alone, and never over an input."""

import json
import os
import shutil
import signal
import socket
import time
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage
from tumour.cases.case import Case, Cases
from tumour.errors import InputError
from tumour.files import Hold, atomic_write, unwritable
from tumour.maps.writer import SaveLabelMapd
from tumour.runs.checkpoints import save_checkpoint
from tumour.runs.folders import Claim

from tests.conftest import BUNDLES, ROOT, forked, run
from tests.members import member

pytestmark = pytest.mark.usefixtures("at_the_root")


@pytest.fixture
def holder(tmp_path):
    """Another process that trains into `tmp_path`."""

    def hold():
        hold = Hold(tmp_path, "training")
        (tmp_path / "held").touch()
        time.sleep(600)
        return hold

    process = forked(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    yield process
    end(process)


def end(process):
    """Kill a process; it may have ended already."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def test_a_second_process_is_refused_with_the_folder_the_computer_and_the_process(holder, tmp_path):
    with pytest.raises(InputError) as error:
        Claim("training", [str(tmp_path / "new"), str(tmp_path)])
    sentence = str(error.value)
    assert str(tmp_path) in sentence and f"process {holder} on {socket.gethostname()}" in sentence
    Claim("evaluating", [str(tmp_path)])  # other work


def test_a_killed_process_holds_nothing_and_what_it_left_goes(holder, tmp_path):
    end(holder)
    assert (tmp_path / ".training.lock").exists()
    hold = Hold(tmp_path, "training")
    assert str(os.getpid()) in (tmp_path / ".training.lock").read_text()
    del hold
    assert not (tmp_path / ".training.lock").exists()


def test_the_copies_of_a_process_do_not_release_or_keep_its_folder(tmp_path):
    hold = Hold(tmp_path, "training")

    def copy():
        nonlocal hold
        del hold
        return 0

    os.waitpid(forked(copy), 0)
    assert (tmp_path / ".training.lock").exists()

    def worker():
        time.sleep(600)

    def parent():
        mine = Hold(tmp_path / "other", "training")
        (tmp_path / "worker").write_text(str(forked(worker)))
        os.kill(os.getpid(), signal.SIGKILL)
        return mine

    os.waitpid(forked(parent), 0)
    Hold(tmp_path / "other", "training")  # though the copy still runs
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def test_a_second_training_ends_before_any_work(holder, patients, tmp_path):
    done = run("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), ckpt_dir=tmp_path)
    assert done.returncode == 1 and f"process {holder}" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "results" / "check.csv").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nothing", "n" * 300])
def test_a_folder_that_cannot_be_written_to_is_refused(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as error:
        Claim("inferring", [str(tmp_path / place)])
    assert str(tmp_path / place) in str(error.value) or "/proc" in str(error.value)
    assert unwritable(tmp_path / place) and not unwritable(tmp_path / "new")


def test_a_link_to_nothing_and_a_link_to_itself_are_called_that(tmp_path):
    (tmp_path / "nothing").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert "is a link to" in str(unwritable(tmp_path / "nothing")) and "nowhere'" in str(
        unwritable(tmp_path / "nothing")
    )
    assert "itself'" in str(unwritable(tmp_path / "itself"))
    with pytest.raises(InputError, match="which does not exist; restore or remove it"):
        Claim("training", [str(tmp_path / "nothing")])


def test_two_names_of_one_folder_are_held_and_released_as_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    with Claim("training", [str(tmp_path / "real"), str(tmp_path / "link")]):
        assert [path.name for path in (tmp_path / "real").iterdir()] == [".training.lock"]
    assert not [*(tmp_path / "real").iterdir()]


@pytest.fixture
def full(tmp_path):
    """A disk of 64 kB that is full."""
    folder = tmp_path / "full"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {folder} 2> /dev/null"):
        pytest.skip("a small disk cannot be mounted here")
    (folder / "filler").write_bytes(b"1" * 65536)
    yield folder
    os.system(f"umount -l {folder}")


def test_a_full_disk_is_named_and_leaves_nothing_behind(full):
    assert "the disk is full" in str(unwritable(full))
    with pytest.raises(InputError, match="the disk is full"):
        Claim("training", [str(full)])
    with pytest.raises(InputError, match=rf"'{full}/a.json': the disk is full"), atomic_write(full / "a.json") as part:
        part.write_bytes(b"1" * 9999)
    with pytest.raises(InputError, match="the disk is full"):
        save_checkpoint(torch.zeros(9999), full / "a.pt")
    assert sorted(path.name for path in full.iterdir() if path.name != ".training.lock") == ["filler"]


def label_map(path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return str(path)


@pytest.fixture
def cases(tmp_path):
    """A data set with images and references in two folders."""
    image, label = label_map(tmp_path / "imagesTr" / "a.nii.gz"), label_map(tmp_path / "labels" / "a.nii.gz")
    return Cases((Case("a", "a", (image,)),), labels=(label,))


def write(cases, target):
    """Write the label map of the only case."""
    image = LoadImage(ensure_channel_first=True)(cases.complete[0].images[0])
    SaveLabelMapd("pred", str(target.parent))({"case": "a", "image": image, "pred": torch.ones(1, 4, 5, 6)})


@pytest.mark.parametrize("folder", ["imagesTr", "labels", "link", "imagesTr/../labels", "labelsTr"])
def test_a_folder_of_the_data_set_takes_no_label_maps(folder, cases, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "labels")
    with pytest.raises(InputError, match="holds files of the data set"):
        Claim("inferring", [str(tmp_path / "out")], str(tmp_path / folder), cases, label_folder="labelsTr")
    Claim("inferring", [str(tmp_path / "out")], str(tmp_path / "out"), cases, label_folder="labelsTr")


def test_only_label_maps_of_this_program_are_replaced(cases, tmp_path):
    target = tmp_path / "elsewhere" / "a.nii.gz"
    label_map(target)  # a reference, or one that was corrected
    before = target.read_bytes()
    with pytest.raises(InputError, match="would be replaced"):
        Claim("inferring", [str(tmp_path / "out")], str(target.parent), cases)
    with pytest.raises(InputError, match="would be replaced"):
        write(cases, target)
    assert target.read_bytes() == before
    target.unlink()
    for _ in range(2):
        write(cases, target)
    Claim("inferring", [str(tmp_path / "out")], str(target.parent), cases)


@pytest.mark.parametrize("run_id", ["inferring", "evaluating"])
def test_references_are_never_overwritten(run_id, patients, tmp_path):
    data = shutil.copytree(patients("msd"), tmp_path / "data")
    member(tmp_path / "models", BUNDLES[0], cohort="msd")
    before = {path: path.read_bytes() for path in data.rglob("*.nii.gz")}
    settings = {"segmentations": data / "labelsTr", "test_share": 1.0}
    done = run(run_id, BUNDLES[0], tmp_path, "msd", data, **settings)
    assert done.returncode == 2 and "labelsTr' holds files of the data set" in done.stderr
    assert {path: path.read_bytes() for path in data.rglob("*.nii.gz")} == before


def test_the_weights_of_a_bundle_are_not_trained_over(patients, tmp_path):
    weights = tmp_path / "bundle" / "weights"
    shutil.copytree(ROOT / "bundles" / BUNDLES[0] / "configs", tmp_path / "bundle" / "configs")
    member(weights, BUNDLES[0])
    before = (weights / "model.pt").read_bytes()
    for resume in (True, False):
        done = run(
            "training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), ckpt_dir=weights, resume=resume
        )
        assert done.returncode == 2 and "holds the weights of the bundle" in done.stderr
    assert (weights / "model.pt").read_bytes() == before


def test_weights_without_a_checkpoint_to_resume_from_are_moved_not_overwritten(patients, tmp_path):
    member(tmp_path / "models", BUNDLES[0])
    before = (tmp_path / "models" / "model.pt").read_bytes()
    done = run("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), epochs=1)
    assert done.returncode == 0 and (tmp_path / "models" / "before-1" / "model.pt").read_bytes() == before


def test_scores_are_not_lost_if_they_cannot_be_recorded_next_to_the_weights(patients, tmp_path):
    member(tmp_path / "models", BUNDLES[0])
    (tmp_path / "models" / "scores.json").mkdir()  # cannot be replaced by a file
    done = run("evaluating", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), test_share=0.4)
    assert done.returncode == 0 and "not recorded next to the weights" in done.stdout
    assert "2 of 2 cases scored" in done.stdout and "mean ± sd" in done.stdout
    assert json.loads((tmp_path / "results" / "scores" / "summary.json").read_text())["scores"]
