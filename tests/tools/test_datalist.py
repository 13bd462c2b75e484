"""A datalist can be used instead of a folder, with the same split, and other tools of MONAI read it."""

import functools
import hashlib
import json
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist
from tumour.cases.find import find_cases
from tumour.cases.parts import patients as patients_of
from tumour.cases.parts import split
from tumour.errors import InputError

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, CONVENTIONS, succeed
from tools.command_line import command_line
from tools.datalist import datalist
from tools.download import download


def files(case):
    return list(case.files.values())


def cases_of(place, convention, modalities=FOUR):
    return find_cases(str(place), COHORTS[convention], modalities).complete


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("fold", [0, 3])
def test_a_datalist_gives_the_cases_and_the_split_of_the_folder(convention, fold, patients, tmp_path):
    folder = patients(convention)
    message = datalist(convention, str(folder), str(tmp_path / "lists" / "datalist.json"))
    assert message.startswith("5 cases in 5 folds and 1 for testing")
    listed, found = cases_of(tmp_path / "lists" / "datalist.json", convention), cases_of(folder, convention)
    for one, other in zip(listed, found, strict=True):
        assert one.name == other.name and one.patient == other.patient
        for first, second in zip(files(one), files(other), strict=True):
            assert Path(first).samefile(second)
    first, second = (patients_of(split(cases, fold, 0.2, seed=0), COHORTS[convention]) for cases in (listed, found))
    assert first == second and all(first.values())


def test_monai_reads_the_datalist(patients, tmp_path):
    path = tmp_path / "datalist.json"
    datalist("brats2021", str(patients("brats2021")), str(path))
    entries = load_decathlon_datalist(path, data_list_key="training")
    assert len(entries) == 5 and {entry["fold"] for entry in entries} == {0, 1, 2, 3, 4}
    assert [name.rsplit("_", 1)[1] for name in entries[0]["image"]] == [
        f"{m}.nii.gz" for m in ("t1", "t1ce", "t2", "flair")
    ]


def test_modalities_of_a_datalist_come_in_the_order_asked_for(patients, tmp_path):
    path = tmp_path / "datalist.json"
    datalist("brats2021", str(patients("brats2021")), str(path))
    case = cases_of(path, "brats2021", ["FLAIR", "T1"])[0]
    assert [name.rsplit("_", 1)[1] for name in case.images] == ["flair.nii.gz", "t1.nii.gz"]


def test_missing_files_and_mixed_parts_of_a_datalist_are_reported(patients, tmp_path):
    path = tmp_path / "datalist.json"
    datalist("brats2023_gli", str(patients("brats2023_gli")), str(path))
    listed = json.loads(path.read_text())
    listed["training"][0]["label"] = "nowhere.nii.gz"
    twin = listed["training"][1] | {"case": f"{listed['training'][1]['case'][:-3]}007", "fold": 9}
    path.write_text(json.dumps(listed | {"training": [*listed["training"], twin]}))
    found = find_cases(str(path), COHORTS["brats2023_gli"], FOUR)
    assert len(found.complete) == 6 and "nowhere.nii.gz' does not exist; correct" in found.left_out[0].why
    with pytest.raises(InputError, match="is in the .* part of the datalist"):
        split(found.complete, listed["training"][1]["fold"], 0.2, 0)
    path.write_text("[1]")
    with pytest.raises(InputError, match="is not what it should be.* create one with python -m tools datalist"):
        cases_of(path, "brats2023_gli")


def test_a_bundle_trains_on_a_datalist(patients, tmp_path):
    path = tmp_path / "datalist.json"
    datalist("brats2021", str(patients("brats2021")), str(path))
    printed = succeed("training", BUNDLES[0], tmp_path, "brats2021", path, epochs=1)
    assert "6 of 6 cases used" in printed


# Downloads
@pytest.fixture
def server(tmp_path, patients):
    """An archive of msd on a local server: its address, its hash and the paths that were requested."""
    (tmp_path / "site").mkdir()
    archive = tmp_path / "site" / "Task01_BrainTumour.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(patients("msd"), "Task01_BrainTumour")
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, form, *args):
            asked.append(self.path)

    site = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "site")))
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{site.server_port}/{archive.name}", hashlib.md5(archive.read_bytes()).hexdigest(), asked
    site.shutdown()


def test_msd_is_downloaded_once_checked_and_found(server, tmp_path):
    url, md5, asked = server
    target = tmp_path / "data" / "Task01_BrainTumour"
    assert str(target) in download("msd", str(tmp_path / "data"), url, md5)
    assert len(cases_of(target, "msd")) == 6 and [path.name for path in target.parent.iterdir()] == [target.name]
    fetched = len(asked)
    assert "already exists" in download("msd", str(tmp_path / "data"), url, md5) and len(asked) == fetched


def test_an_interrupted_unpacking_is_repeated(server, tmp_path):
    url, md5, _ = server
    (tmp_path / "data" / ".unpacking" / "Task01_BrainTumour" / "imagesTr").mkdir(parents=True)
    (tmp_path / "data" / ".unpacking" / "Task01_BrainTumour" / "half.nii.gz").touch()
    download("msd", str(tmp_path / "data"), url, md5)
    assert len(cases_of(tmp_path / "data", "msd")) == 6
    assert not (tmp_path / "data" / "Task01_BrainTumour" / "half.nii.gz").exists()


def test_a_wrong_hash_a_dead_server_and_other_cohorts_are_refused(server, tmp_path, capsys):
    url, md5, _ = server
    for arguments, message in [
        (("msd", str(tmp_path / "data"), url, "0" * 32), "hash of .* is not 0000"),
        (
            ("msd", str(tmp_path / "data"), url.replace("Task01", "Task99"), md5),
            "cannot be downloaded .*404.*run again",
        ),
        (("msd", str(tmp_path / "data"), "http://127.0.0.1:9/Task01_BrainTumour.tar", md5), "check the network"),
        (("brats2021",), "needs a registration.*https://www.synapse.org/brats"),
    ]:
        with pytest.raises(InputError, match=message):
            download(*arguments)
    assert not (tmp_path / "data" / "Task01_BrainTumour").exists()
    with pytest.raises(SystemExit) as stop:
        command_line(download, "tools download", ["--cohort=brats2021"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: brats2021 needs a registration")
