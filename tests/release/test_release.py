"""What a release holds, and that the zoo's checks of it pass and can fail."""

import json
import re
import shutil
import zipfile

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from tests.bundles.test_configs import leaves
from tests.conftest import BUNDLES, ROOT
from tools.release import card, export, verify
from tools.release import pack as release
from tools.show import merged
from tumour.errors import InputError
from tumour.files import save_json
from tumour.runs.checkpoints import half, save_whole
from tumour.scores.evaluation import record_scores

SCHEMA = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"  # where a machine has it
FORMATS = [("inputs", "image"), ("outputs", "pred"), ("post_processed_outputs", "pred")]
WORKFLOWS = ("train", "evaluate", "inference")
bundles = pytest.mark.parametrize("bundle", BUNDLES)


@pytest.fixture(scope="module")
def contents():
    """The files of each release, without weights."""
    return {bundle: release.content(bundle) for bundle in BUNDLES}


def test_the_same_files_give_the_same_bytes(tmp_path):
    first, second = (release.pack(BUNDLES[0], str(tmp_path / name)).read_bytes() for name in "ab")
    assert first == second


@bundles
@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_workflow_is_complete_alone(bundle, name, contents):
    config = json.loads(contents[bundle][f"configs/{name}.json"])
    parser = ConfigParser(config)
    for path, value in leaves(config):
        if isinstance(value, str) and value[:1] in "@$":
            for reference in re.findall(r"@([\w:]+)", value):
                assert reference in parser, f"{path} names {reference}"
        assert not (isinstance(value, str) and ("bundles/" in value or value.startswith("%"))), f"{path}: {value}"
    assert config["bundle_root"] == "." and config["run"] == config[release.WORKFLOWS[name]]


@bundles
def test_a_workflow_holds_no_value_that_nothing_uses(bundle, contents):
    files = {name: json.loads(contents[bundle][f"configs/{name}.json"]) for name in WORKFLOWS}
    assert "train" in files["train"] and "validate" in files["train"]
    assert not files["inference"].keys() & {"train", "validate", "evaluate", "optimizer", "loss", "parts"}
    assert not files["evaluate"].keys() & {"train", "optimizer", "loss", "augment"}


@bundles
def test_a_release_holds_both_packages_whole_and_nothing_of_tools(bundle, contents):
    files = contents[bundle]
    sources = [path for package in ("custom_components", "tumour") for path in (ROOT / package).rglob("*.py")]
    assert {name for name in files if name.endswith(".py")} == {path.relative_to(ROOT).as_posix() for path in sources}
    text = b"\n".join(files[name] for name in files if name.endswith((".json", ".py"))).decode()
    assert not re.search(r"^(from|import) tools\b|\"tools\.", text, flags=re.MULTILINE)


def test_all_releases_hold_the_same_modules_so_one_process_may_load_them_together(contents):
    code = [{name: text for name, text in contents[bundle].items() if name.endswith(".py")} for bundle in BUNDLES]
    assert code.count(code[0]) == len(code)


@bundles
def test_a_recipe_lies_over_each_workflow_whatever_that_has_of_it(bundle, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train::trainer::amp: true\nnetwork_def::network::filters: [8, 16, 32, 64, 128]\nepochs: 3\n")
    with_train = release.configs(bundle)["train"]
    recipe = release.recipe(with_train, path)
    assert recipe["train"]["trainer"]["amp"] is True and recipe["epochs"] == 3
    assert recipe["network_def"]["network"].keys() == with_train["network_def"]["network"].keys()
    assert with_train["train"]["trainer"]["amp"] is not True
    inference = ConfigParser(release.configs(bundle)["inference"])
    inference.update(recipe)
    assert inference.get_parsed_content("network_def").network.filters == [8, 16, 32, 64, 128]


@bundles
def test_a_model_card_has_the_zoo_sections_in_order_and_says_whether_there_are_weights(bundle, contents):
    text = contents[bundle]["docs/README.md"].decode()
    headings = [name for name in card.sections(text) if name in card.SECTIONS]
    assert headings == [name for name in card.SECTIONS if name in headings]
    assert {"Data", "Input", "Output", "Performance", "MONAI Bundle Commands", "References"} <= set(headings)
    assert "No weights are shipped" in text and not re.search(r"{\w+}", text)


@pytest.fixture
def weights(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "model.pt")
    (tmp_path / "patients.json").write_text('{"train": ["x"], "validate": ["y"]}')
    return tmp_path / "model.pt"


def test_weights_are_shipped_with_the_patients_that_they_have_seen(weights):
    files = release.content(BUNDLES[0], weights)
    assert files["models/model.pt"] == weights.read_bytes()
    assert json.loads(files["models/patients.json"]) == {"train": ["x"], "validate": ["y"]}
    assert "`models/model.pt`" in files["docs/README.md"].decode()


def test_the_card_and_the_metadata_tell_the_scores_of_the_weights_in_the_release_and_of_no_others(weights):
    bundle = BUNDLES[0]
    told = release.content(bundle, weights)
    assert (
        "have not been scored" in told["docs/README.md"].decode()
        and "Trained on" not in told["docs/README.md"].decode()
    )
    assert json.loads(told["configs/metadata.json"])["eval_metrics"] == {}
    weights.with_name("patients.json").write_text('{"train": ["x", "y"], "validate": ["z", "v"], "test": ["w"]}')
    weights.with_name("settings.json").write_text('{"cohort": "brats2018"}')
    part = {"cases": 2, "mean": 0.75, "interval_low": 0.5, "interval_high": 1.0}
    region = {"kind": "region", "dice": part, "hd95": {**part, "mean": 9.0}, "iou": part}
    record_scores(weights, "brats2021", {"challenge": "legacy", "scores": {"TC": region, "oedema": {"kind": "class"}}})
    told = release.content(bundle, weights)
    text = told["docs/README.md"].decode()
    assert "Trained on 2 patients of brats2018; 2 others chose the checkpoint" in text
    assert "| brats2021 | legacy | 2 | TC | 0.750 (0.500 to 1.000) | 9.0 (0.5 to 1.0) |" in text
    metrics = {"brats2021": {"dice_TC": 0.75, "hd95_TC": 9.0, "patients": 2}}
    assert json.loads(told["configs/metadata.json"])["eval_metrics"] == metrics and "models/scores.json" in told
    torch.save({"a": torch.zeros(3)}, weights)
    assert "have not been scored" in release.content(bundle, weights)["docs/README.md"].decode()


@bundles
def test_the_network_and_data_set_of_a_release_are_those_of_its_weights(bundle, weights):
    weights.with_name("settings.json").write_text('{"cohort": "msd", "size": "full", "modalities": ["T1ce", "FLAIR"]}')
    files = release.content(bundle, weights)
    config = {name: json.loads(files[f"configs/{name}.json"]) for name in WORKFLOWS}
    for each in config.values():
        assert (each["size"], each["modalities"], each["cohort"]) == ("full", ["T1ce", "FLAIR"], "msd")
    network = ConfigParser(config["inference"]).get_parsed_content("network_def").network
    assert next(network.parameters()).shape[:2] == (32, 2)
    told = json.loads(files["configs/metadata.json"])["network_data_format"]
    image, logits, labels = (told[part][name] for part, name in FORMATS)
    assert image["channel_def"] == {"0": "T1ce", "1": "FLAIR"} and image["num_channels"] == 2
    names = {"0": "background", "1": "oedema", "2": "necrotic core", "3": "enhancing tumour"}
    assert logits["channel_def"] == labels["channel_def"] == names and labels["value_range"] == [0, 3]
    text = files["docs/README.md"].decode()
    assert "Volumes of T1ce, FLAIR, co-registered" in text and "inference.json --cohort msd" in text


def test_the_metadata_of_weights_trained_after_surgery_tell_the_cavity(weights):
    weights.with_name("settings.json").write_text('{"cohort": "brats2024_gli"}')
    told = json.loads(release.content(BUNDLES[0], weights)["configs/metadata.json"])["network_data_format"]
    image, logits, labels = (told[part][name] for part, name in FORMATS)
    assert (image["num_channels"], logits["num_channels"], labels["num_channels"]) == (4, 4, 1)
    assert logits["channel_def"]["4"] == labels["channel_def"]["4"] == "resection cavity"


def test_weights_behind_a_url_stay_out_and_their_hash_goes_in(weights, tmp_path, monkeypatch):
    url = weights.as_uri()
    archive = release.pack(BUNDLES[0], tmp_path, weights, url)
    zipfile.ZipFile(archive).extractall(tmp_path)
    folder = tmp_path / BUNDLES[0]
    assert not (folder / "models" / "model.pt").exists()
    entry = yaml.safe_load((folder / "large_files.yml").read_text())["large_files"][0]
    from monai.apps.utils import check_hash

    assert entry["url"] == url and entry["path"] == "models/model.pt"
    assert check_hash(str(weights), entry["hash_val"], entry["hash_type"])


def test_large_weights_are_refused_without_a_url(weights, monkeypatch):
    monkeypatch.setattr(release, "LARGE", 10)
    with pytest.raises(InputError, match="over 25: upload it and give its address by URL="):
        release.content(BUNDLES[0], weights)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of this repository without any weights, which `release` packs."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "bundles", folder / "bundles", ignore=shutil.ignore_patterns("models", "weights", "eval"))
    for name in ("LICENSE", "custom_components", "tumour"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.setattr(release, "ROOT", folder)
    monkeypatch.chdir(ROOT)
    return folder


def put(folder, name):
    """Weights in a folder, with patients that tell them from others."""
    folder.mkdir()
    network = merged(f"bundles/{BUNDLES[0]}/args.yaml").get_parsed_content("network_def")
    save_whole(network.state_dict(), folder / "model.pt")
    (folder / "patients.json").write_text(json.dumps({"train": [name], "validate": []}))


@pytest.mark.parametrize(
    ("there", "taken"), [(["models", "weights"], "models"), (["weights"], "weights"), (["models"], "models")]
)
def test_the_training_of_the_user_is_packed_before_the_weights_that_the_repository_brings(
    there, taken, checkout, tmp_path, capsys
):
    own = checkout / "bundles" / BUNDLES[0]
    for name in there:
        put(own / name, name)
    release.release(BUNDLES[0], str(tmp_path))
    assert capsys.readouterr().out.endswith(f"weights {own / taken / 'model.pt'}\n")
    files = zipfile.ZipFile(next(tmp_path.glob("*.zip")))
    assert json.loads(files.read(f"{BUNDLES[0]}/models/patients.json"))["train"] == [taken]
    assert [name for name in files.namelist() if name.endswith(".pt")] == [f"{BUNDLES[0]}/models/model.pt"]


def test_a_bundle_with_neither_is_packed_without_weights(checkout, tmp_path, capsys):
    release.release(BUNDLES[0], str(tmp_path))
    assert capsys.readouterr().out.endswith("weights none\n")
    files = zipfile.ZipFile(next(tmp_path.glob("*.zip")))
    assert not [name for name in files.namelist() if "/models/" in name]
    with pytest.raises(InputError, match="models/model.pt' is not there; train first"):
        release.release(BUNDLES[0], str(tmp_path), url="https://example.org/model.pt")


@pytest.mark.parametrize("command", [release.release, export.export])
def test_weights_of_another_attention_are_told_and_nothing_is_written(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = merged("bundles/neuroseg3d/args.yaml")
    parser["network_def::network::attention"] = "cbam"
    save_whole(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="another network: .* must stand in bundles/neuroseg3d/configs/train.yaml"):
        command("neuroseg3d", output=str(tmp_path / "out"), weights=str(tmp_path / "model.pt"))
    assert not (tmp_path / "out").exists()


def test_wrong_names_are_told_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="BUNDLE must be all or one of .*unet3d; it is 'unet4d'"):
        release.release("unet4d", str(tmp_path))
    with pytest.raises(InputError, match="nowhere.pt' is not there"):
        release.release(BUNDLES[0], str(tmp_path), weights="nowhere.pt")
    with pytest.raises(InputError, match="is not there; make it by make release"):
        verify.verify(BUNDLES[0], str(tmp_path))


def test_every_check_of_the_zoo_passes(tmp_path):
    found = verify.check(release.pack("neuroseg3d", str(tmp_path)), SCHEMA if SCHEMA.is_file() else None)
    unchecked = set() if SCHEMA.is_file() else {"metadata_schema"}  # it is fetched, where there is a network
    assert {name for name, fault in found.items() if fault} <= unchecked and len(found) == 15, found


def test_the_zoo_checks_run_the_weights_that_ship_and_leave_them_as_they_are(tmp_path, monkeypatch):
    """Of a network that takes fewer modalities and was trained on data of other names and label values."""
    monkeypatch.chdir(ROOT)
    settings = {"cohort": "brats2023_gli", "modalities": ["FLAIR", "T1ce"]}
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml")
    parser.update(settings)
    save_whole(half(parser.get_parsed_content("network_def").state_dict()), tmp_path / "model.pt")
    save_json(settings, tmp_path / "settings.json")
    shipped = verify.Release(release.pack(BUNDLES[0], tmp_path, tmp_path / "model.pt"), tmp_path, None)
    shipped.train_properties_and_run()
    shipped.evaluate_alone_runs()
    shipped.network_in_and_out()
    shipped.inference_properties_and_run()
    assert len(list(shipped.folder.glob("eval/segmentations/BraTS-GLI-*"))) == 6
    assert {path.name: path.read_bytes() for path in (shipped.folder / "models").iterdir()} == {
        name: (tmp_path / name).read_bytes() for name in ("model.pt", "settings.json")
    }


def broken(archive, target, name, change):
    """A copy of a release with one file changed, or taken out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for entry in source.namelist():
            text = source.read(entry).decode()
            text = change(text) if entry.endswith(name) else text
            if text is not None:
                copy.writestr(entry, text)
    return target


FAULTS = {
    "required_files": ("LICENSE", lambda text: None),
    "version_in_changelog": ("metadata.json", lambda text: text.replace('"version": "0.1.0"', '"version": "0.9.0"')),
    "json_style": ("train.json", lambda text: json.dumps(json.loads(text), indent=2)),
    "whitespace": ("docs/README.md", lambda text: text + "\n\n"),
    "python_style": ("losses.py", lambda text: text + "import os\n"),
    "train_properties_and_run": ("train.json", lambda text: text.replace('"max_epochs"', '"epochs_at_most"')),
    "network_in_and_out": ("metadata.json", lambda text: text.replace('"num_channels": 3', '"num_channels": 2')),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_check_fails_where_the_release_is_wrong(check, tmp_path):
    archive = release.pack(BUNDLES[0], str(tmp_path))
    (tmp_path / "wrong").mkdir()
    wrong = broken(archive, tmp_path / "wrong" / archive.name, *FAULTS[check])
    with pytest.raises(Exception) as error:
        getattr(verify.Release(wrong, tmp_path, None), check)()
    assert str(error.value)
