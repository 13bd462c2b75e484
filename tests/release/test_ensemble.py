"""An ensemble is released, exported and verified as any network is."""

import json

import pytest
import torch
from tumour.errors import InputError
from tumour.files import save_json

from tests.conftest import BUNDLES
from tests.members import ensemble_of
from tests.release.test_export import COHORT, label_map
from tests.release.test_release import SCHEMA
from tools.release import export, pack, verify

pytestmark = pytest.mark.usefixtures("at_the_root")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return ensemble_of(tmp_path_factory.mktemp("members"), "neuroseg3d", "unet3d")


def test_every_check_of_the_zoo_passes(checkpoint, tmp_path):
    archive = pack.pack("neuroseg3d", tmp_path, checkpoint)
    found = verify.check(archive, SCHEMA if SCHEMA.is_file() else None)
    unchecked = set() if SCHEMA.is_file() else {"metadata_schema"}  # it would be downloaded
    assert {name for name, fault in found.items() if fault} <= unchecked and len(found) == 15, found


@pytest.mark.parametrize("format", export.FORMATS)
def test_exported_to_one_file_it_segments_as_pytorch_does(format, checkpoint, patients, tmp_path):
    export.export("neuroseg3d", format, str(tmp_path / "out"), str(checkpoint))
    export.unpack("neuroseg3d", checkpoint, tmp_path / "bundle")
    network = export.network_of(tmp_path / "bundle")
    exported = export.FORMATS[format][1](next((tmp_path / "out").iterdir()))
    ours, theirs = (label_map("neuroseg3d", each, patients(COHORT), tmp_path / "maps") for each in (network, exported))
    assert (ours == theirs).mean() >= 0.999 and len(set(ours.ravel())) == 4


def test_the_card_states_the_number_of_networks(checkpoint):
    files = pack.content("neuroseg3d", checkpoint)
    assert "averages the probabilities of 2 networks" in files["docs/README.md"].decode()
    assert len(json.loads(files["configs/inference.json"])["network_def"]["members"]) == 2


@pytest.mark.parametrize("members", [["$import os"], ["none"], "unet3d", [{"_target_": "os.system"}], 3])
def test_members_that_are_no_bundles_are_refused(members, checkpoint, tmp_path):
    torch.save({}, tmp_path / "model.pt")
    save_json(
        json.loads(checkpoint.with_name("settings.json").read_text()) | {"members": members}, tmp_path / "settings.json"
    )
    with pytest.raises(InputError, match=r"members in|members(\[0\])? is .*, not|bundle must be one of"):
        pack.content(BUNDLES[0], tmp_path / "model.pt")
