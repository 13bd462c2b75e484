"""A release contains what it should; the checks of the zoo pass, and fail for a wrong release."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from tumour.errors import InputError
from tumour.files import save_json
from tumour.runs.checkpoints import save_checkpoint, to_float16
from tumour.runs.trained import layer_types
from tumour.scores.evaluation import record_scores

from tests.bundles.test_configs import leaves
from tests.conftest import BUNDLES, ROOT
from tools.release import card, configs, export, verify
from tools.release import pack as release
from tools.show import merged

SCHEMA = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"  # if the machine has it
FORMATS = [("inputs", "image"), ("outputs", "pred"), ("post_processed_outputs", "pred")]
WORKFLOWS = tuple(configs.WORKFLOWS)
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
def test_each_workflow_is_complete_on_its_own(bundle, name, contents):
    config = json.loads(contents[bundle][f"configs/{name}.json"])
    parser = ConfigParser({**config, "_meta_": json.loads(contents[bundle]["configs/metadata.json"])})  # as MONAI does
    for path, value in leaves(config):
        if isinstance(value, str) and value[:1] in "@$":
            for reference in re.findall(r"@([\w:]+)", value):
                assert reference in parser, f"{path} names {reference}"
        assert not (isinstance(value, str) and ("bundles/" in value or value.startswith("%"))), f"{path}: {value}"
    first, *others = configs.WORKFLOWS[name]
    assert config["bundle_root"] == "." and config["run"] == config[first] and {*others} <= config.keys()


@bundles
def test_a_workflow_contains_no_unused_value(bundle, contents):
    files = {name: json.loads(contents[bundle][f"configs/{name}.json"]) for name in WORKFLOWS}
    assert "train" in files["train"] and "validate" in files["train"]
    assert not files["inference"].keys() & {"train", "validate", "evaluate", "optimizer", "loss", "parts"}
    assert not files["evaluate"].keys() & {"train", "optimizer", "loss", "augment"}


@bundles
def test_a_release_contains_both_packages_complete_and_nothing_of_tools(bundle, contents):
    files = contents[bundle]
    sources = [path for package in ("custom_components", "tumour") for path in (ROOT / package).rglob("*.py")]
    assert {name for name in files if name.endswith(".py")} == {path.relative_to(ROOT).as_posix() for path in sources}
    text = b"\n".join(files[name] for name in files if name.endswith((".json", ".py"))).decode()
    assert not re.search(r"^(from|import) tools\b|\"tools\.", text, flags=re.MULTILINE)


LOAD_BOTH = """
import sys, tools
from monai.bundle import load
folder, *bundles = sys.argv[1:]
sys.path.append(f"{folder}/{bundles[0]}")
networks = [load(b, bundle_dir=folder, workflow_type="inference", source="github", repo="a/b/c") for b in bundles]
assert tools.STRANGER and len({type(network.network).__name__ for network in networks}) == 2, networks
import tumour, custom_components
print(tumour.__file__, custom_components.__file__)
"""


def test_two_releases_and_a_foreign_package_called_tools_work_in_one_process(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("STRANGER = True\n")
    pair = "attention_unet", "neuroseg3d"
    for bundle in pair:
        archive = release.pack(bundle, tmp_path, release.checkpoint_of(bundle))
        zipfile.ZipFile(archive).extractall(tmp_path)
    command = [sys.executable, "-c", LOAD_BOTH, str(tmp_path), *pair]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].count(str(tmp_path)) == 2


def test_all_releases_contain_the_same_python_code(contents):
    code = [{name: text for name, text in contents[bundle].items() if name.endswith(".py")} for bundle in BUNDLES]
    assert code.count(code[0]) == len(code)


@bundles
def test_a_recipe_can_be_merged_on_top_of_each_workflow(bundle, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train::trainer::amp: true\nnetwork_def::network::filters: [8, 16, 32, 64, 128]\nepochs: 3\n")
    with_train = configs.configs(bundle)["train"]
    recipe = configs.recipe(with_train, path)
    assert recipe["train"]["trainer"]["amp"] is True and recipe["epochs"] == 3
    assert recipe["network_def"]["network"].keys() == with_train["network_def"]["network"].keys()
    assert with_train["train"]["trainer"]["amp"] is not True
    inference = ConfigParser(configs.configs(bundle)["inference"])
    inference.update(recipe)
    assert inference.get_parsed_content("network_def").network.filters == [8, 16, 32, 64, 128]


ZOO_SECTIONS = ["# Model Overview", "## Data", "## Training configuration", "### Memory Consumption", "## Input"]
ZOO_SECTIONS += ["## Output", "## Performance", "## MONAI Bundle Commands", "# References", "# License"]


@bundles
def test_a_model_card_has_the_zoo_sections_in_order_and_states_whether_there_are_weights(bundle, contents):
    text = contents[bundle]["docs/README.md"].decode()
    sections = card.sections(text)
    assert list(sections) == ZOO_SECTIONS and all(sections.values())
    assert "No trained weights are included" in sections["## Performance"] and not re.search(r"{{|}}|{%", text)


def test_a_section_that_the_common_card_does_not_have_is_refused(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("# Model Overview\n\nMine.\n\n## Thanks\n\nTo all.\n")
    monkeypatch.setattr(card, "folder_of", lambda bundle: tmp_path)
    with pytest.raises(InputError, match="'## Thanks' is not a heading of bundles/common/card.md"):
        release.content(BUNDLES[0])


@bundles
def test_no_file_except_scores_json_contains_scores(bundle):
    folder = ROOT / "bundles" / bundle
    assert "eval_metrics" not in json.loads((folder / "configs" / "metadata.json").read_text())
    text = (folder / "docs" / "README.md").read_text() + (ROOT / "bundles/common/card.md").read_text()
    assert not re.search(r"\| *0\.\d{3}", text)


@pytest.fixture
def weights(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "model.pt")
    (tmp_path / "patients.json").write_text('{"train": ["x"], "validate": ["y"]}')
    return tmp_path / "model.pt"


def test_weights_are_packed_with_the_list_of_their_training_patients(weights):
    files = release.content(BUNDLES[0], weights)
    assert files["models/model.pt"] == weights.read_bytes()
    assert json.loads(files["models/patients.json"]) == {"train": ["x"], "validate": ["y"]}
    assert "`models/model.pt`" in files["docs/README.md"].decode()


def test_the_card_and_the_metadata_give_the_scores_of_the_weights_in_the_release_and_no_others(weights):
    bundle = BUNDLES[0]
    files = release.content(bundle, weights)
    assert "| not scored yet |" in files["docs/README.md"].decode()
    assert json.loads(files["configs/metadata.json"])["eval_metrics"] == {}
    weights.with_name("patients.json").write_text('{"train": ["x", "y"], "validate": ["z", "v"], "test": ["w"]}')
    weights.with_name("settings.json").write_text('{"cohort": "brats2018"}')
    part = {"cases": 2, "mean": 0.75, "interval_low": 0.5, "interval_high": 1.0}
    region = {"kind": "region", "dice": part, "hd95": {**part, "mean": 9.0}, "iou": part}
    record_scores(weights, "brats2021", {"challenge": "legacy", "scores": {"TC": region, "oedema": {"kind": "class"}}})
    files = release.content(bundle, weights)
    text = files["docs/README.md"].decode()
    assert (
        "| 2 + 2, read as brats2018 | 2, read as brats2021 | legacy | 0.750 (0.500 to 1.000) | 0.750 | TC 9.0 |" in text
    )
    metrics = {"brats2021": {"dice_TC": 0.75, "hd95_TC": 9.0, "scans": 2}}
    assert json.loads(files["configs/metadata.json"])["eval_metrics"] == metrics and "models/scores.json" in files
    torch.save({"a": torch.zeros(3)}, weights)
    assert "| not scored yet |" in release.content(bundle, weights)["docs/README.md"].decode()


CODE = "$__import__('os').system('touch ran')"
BAD_SETTINGS = [
    ({"size": CODE}, "size in settings.json must be one of fast, full; it is "),
    ({"cohort": CODE}, "cohort in settings.json must be one of brats2018, .*; it is "),
    ({"cohort": ["msd"]}, "cohort in '.*settings.json' must be a name; it is "),
    ({"modalities": CODE}, "modalities in '.*settings.json' must be a list without repetitions.*; it is "),
    ({"modalities": ["T1", CODE]}, "modalities in settings.json must be a list of T1, T1ce, T2, FLAIR; it is "),
    ({"modalities": []}, "modalities in '.*settings.json' must be a list without repetitions.*; it is "),
    ({"activation": CODE}, "activation in '.*settings.json' must be one of sigmoid, softmax; it is "),
    ({"spacing": [1, 1, CODE]}, "spacing in '.*settings.json' must be a list of 3 numbers .*; it is "),
    ({"resize": CODE}, "resize in '.*settings.json' must be a list of integers .*; it is "),
    ({"window": [64, 64]}, "window in '.*settings.json' must be a list of 3 integers .*; it is "),
    ([CODE], "settings.json' is not what it should be: its content is"),
]


@pytest.mark.parametrize("command", [release.release, export.export])
@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_settings_next_to_the_weights_are_refused_unless_the_configs_know_them(
    settings, message, command, weights, tmp_path, monkeypatch
):
    """MONAI evaluates `$` expressions of a config, so no other text of the file may be copied into it."""
    monkeypatch.chdir(tmp_path)
    save_json(settings, tmp_path / "settings.json")
    with pytest.raises(InputError, match=message):
        command(BUNDLES[0], output=str(tmp_path / "out"), weights=str(weights))
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_other_settings_next_to_the_weights_do_not_get_into_the_configs(weights):
    other = {
        "network_def": CODE,
        "seed": CODE,
        "channels": {CODE: [CODE]},
        "normalisation": {CODE: True},
        "layers": [CODE],
    }
    save_json({"cohort": "msd", **other}, weights.with_name("settings.json"))
    files = release.content(BUNDLES[0], weights)
    assert not any(b"__import__" in data for name, data in files.items() if name.startswith("configs/"))


@bundles
def test_the_network_and_data_set_of_a_release_are_those_of_its_weights(bundle, weights):
    weights.with_name("settings.json").write_text('{"cohort": "msd", "size": "full", "modalities": ["T1ce", "FLAIR"]}')
    files = release.content(bundle, weights)
    config = {name: json.loads(files[f"configs/{name}.json"]) for name in WORKFLOWS}
    for each in config.values():
        parser = ConfigParser(each)
        values = [parser.get_parsed_content(name) for name in ("size", "modalities", "cohort")]
        assert values == ["full", ["T1ce", "FLAIR"], "msd"]
    network = ConfigParser(config["inference"]).get_parsed_content("network_def").network
    assert next(network.parameters()).shape[:2] == (32, 2)
    formats = json.loads(files["configs/metadata.json"])["network_data_format"]
    image, logits, labels = (formats[part][name] for part, name in FORMATS)
    assert image["channel_def"] == {"0": "T1ce", "1": "FLAIR"} and image["num_channels"] == 2
    names = {"0": "background", "1": "oedema", "2": "necrotic core", "3": "enhancing tumour"}
    assert logits["channel_def"] == labels["channel_def"] == names and labels["value_range"] == [0, 3]
    text = files["docs/README.md"].decode()
    assert "Volumes of T1ce, FLAIR, co-registered" in text and "inference.json --cohort msd" in text
    assert "0 background, 1 oedema, 2 necrotic core, 3 enhancing tumour." in text


def test_a_release_segments_with_the_settings_of_its_weights_and_those_of_a_later_training(weights, tmp_path):
    """Also without the file settings.json, as a TorchScript file does; a training has the patch size of its device."""
    sizes = {"patch_size": [64, 64, 64], "window": [96, 96, 96]}
    record = sizes | {"spacing": [2, 2, 2], "resize": [48, 48, 48], "activation": "softmax", "modality_dropout": 0.2}
    save_json(record, weights.with_name("settings.json"))
    files = release.content(BUNDLES[0], weights)
    config = {name: json.loads(files[f"configs/{name}.json"]) for name in WORKFLOWS}
    later = {**record, "size": "full", "spacing": [1, 1, 3], "window": [64, 64, 64]}
    (tmp_path / "later").mkdir()
    save_json(later, tmp_path / "later" / "settings.json")
    for name, each in config.items():
        for folder, settings in ((tmp_path / "none", record), (tmp_path / "later", later)):
            parser = ConfigParser({**each, "ckpt_dir": str(folder), "device": "cuda", "precision": "float32"})
            settings = {**record, "patch_size": [128] * 3, "window": [128] * 3} if name == "train" else settings
            for key in ("spacing", "resize", "patch_size", "window"):
                assert list(parser.get_parsed_content(key)) == settings[key], (name, folder, key)
            assert parser.get_parsed_content("size") == settings.get("size", "fast")
            assert parser.get_parsed_content("head")["activation"] == "softmax"
            assert name != "inference" or parser.get_parsed_content("trained")["modality_dropout"] == 0.2


def test_the_card_and_the_metadata_of_weights_state_the_spacing_and_the_outputs_that_they_were_trained_for(weights):
    first = release.content(BUNDLES[0], weights)
    assert "RAS at 1.0 x 1.0 x 1.0 mm, and z-scored" in first["docs/README.md"].decode()
    pred = "logits of overlapping regions, channel 0 TC, channel 1 WT, channel 2 ET, merged to one label map"
    assert json.loads(first["configs/metadata.json"])["pred_classes"] == pred
    record = {"spacing": [2, 2, 2.5], "resize": [48, 48, 48], "activation": "softmax"}
    save_json(record, weights.with_name("settings.json"))
    files = release.content(BUNDLES[0], weights)
    text = files["docs/README.md"].decode()
    assert "RAS at 2 x 2 x 2.5 mm, resized to 48 x 48 x 48 voxels, and" in text and "overlapping" not in text
    assert "segments the classes of a brain tumour" in text and ": background, necrotic, oedema, enhancing" in text
    assert "logits of classes, channel 0 background" in json.loads(files["configs/metadata.json"])["pred_classes"]


def test_weights_of_another_activation_function_are_refused(tmp_path, monkeypatch):
    """Its weights have the same names and shapes."""
    monkeypatch.chdir(ROOT)
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml")
    parser["network_def::network::act_name"] = "relu"
    network = parser.get_parsed_content("network_def")
    save_checkpoint(network.state_dict(), tmp_path / "model.pt")
    save_json({"layers": layer_types(network)}, tmp_path / "settings.json")
    with pytest.raises(InputError, match="LeakyReLU only now.* set anything else"):
        release.release(BUNDLES[0], output=str(tmp_path / "out"), weights=str(tmp_path / "model.pt"))


def test_the_metadata_of_weights_trained_after_surgery_name_the_cavity(weights):
    weights.with_name("settings.json").write_text('{"cohort": "brats2024_gli"}')
    formats = json.loads(release.content(BUNDLES[0], weights)["configs/metadata.json"])["network_data_format"]
    image, logits, labels = (formats[part][name] for part, name in FORMATS)
    assert (image["num_channels"], logits["num_channels"], labels["num_channels"]) == (4, 4, 1)
    assert logits["channel_def"]["4"] == labels["channel_def"]["4"] == "resection cavity"


def test_weights_with_a_url_are_not_packed_but_their_hash_is(weights, tmp_path):
    url = weights.as_uri()
    archive = release.pack(BUNDLES[0], tmp_path, weights, url)
    zipfile.ZipFile(archive).extractall(tmp_path)
    folder = tmp_path / BUNDLES[0]
    assert not (folder / "models" / "model.pt").exists()
    entry = yaml.safe_load((folder / "large_files.yml").read_text())["large_files"][0]
    from monai.apps.utils import check_hash

    assert entry["url"] == url and entry["path"] == "models/model.pt"
    assert check_hash(str(weights), entry["hash_val"], entry["hash_type"])


def test_large_weights_are_refused_without_a_url(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(release, "LARGE", 10)
    with pytest.raises(InputError, match="over the zoo's limit of 0 MB; upload it and give its address with URL="):
        release.pack(BUNDLES[0], tmp_path, weights)
    assert not list(tmp_path.glob("*.zip"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of this repository without weights, which `release` packs."""
    folder = tmp_path / "checkout"
    (folder / "bundles" / BUNDLES[0]).mkdir(parents=True)
    for name in ("LICENSE", *release.PACKAGES):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.setattr(release, "ROOT", folder)
    monkeypatch.chdir(ROOT)
    return folder


def put(folder, name):
    """Weights in a folder, with the name of their training patient."""
    folder.mkdir()
    network = merged(f"bundles/{BUNDLES[0]}/args.yaml").get_parsed_content("network_def")
    save_checkpoint(network.state_dict(), folder / "model.pt")
    (folder / "patients.json").write_text(json.dumps({"train": [name], "validate": []}))


@pytest.mark.parametrize(
    ("there", "taken"), [(["models", "weights"], "models"), (["weights"], "weights"), (["models"], "models")]
)
def test_weights_of_the_users_training_are_packed_rather_than_those_of_the_repository(
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
    with pytest.raises(InputError, match="models/model.pt' does not exist; train first"):
        release.release(BUNDLES[0], str(tmp_path), url="https://example.org/model.pt")


@pytest.mark.parametrize("command", [release.release, export.export])
def test_weights_of_another_attention_are_refused_and_nothing_is_written(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = merged("bundles/neuroseg3d/args.yaml")
    parser["network_def::network::attention"] = "cbam"
    save_checkpoint(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="another network: .* set anything else .* in bundles/neuroseg3d/configs"):
        command("neuroseg3d", output=str(tmp_path / "out"), weights=str(tmp_path / "model.pt"))
    assert not (tmp_path / "out").exists()


def test_wrong_names_give_one_clear_sentence(tmp_path):
    with pytest.raises(InputError, match="bundle must be one of .*unet3d; it is 'unet4d'; the nearest is unet3d"):
        release.release("unet4d", str(tmp_path))
    with pytest.raises(InputError, match="nowhere.pt' does not exist"):
        release.release(BUNDLES[0], str(tmp_path), weights="nowhere.pt")
    with pytest.raises(InputError, match="does not exist; create it with make release"):
        verify.verify(BUNDLES[0], str(tmp_path))


def encrypted(content):
    """A zip that states that its first file is encrypted."""
    local, central = b"PK\3\4\x14\0", b"PK\1\2\x14\3\x14\0"
    return content.replace(local + b"\0", local + b"\1").replace(central + b"\0", central + b"\1")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("../outside", bytes, "is not unpacked, '../outside' lies outside it"),
        ("a/../../outside", bytes, "is not unpacked, 'a/../../outside' lies outside it"),
        ("/tmp/outside", bytes, "is not unpacked, '/tmp/outside' lies outside it"),
        ("large", bytes, "is not unpacked, it states 1,000 bytes, over 999"),
        ("a", lambda content: content[:-30], "is damaged"),
        ("a", lambda content: content.replace(b"word", b"wird", 1), "is damaged"),
        ("a", encrypted, "is damaged .*encrypted"),
        ("a", lambda content: b"text", "is damaged"),
    ],
)
def test_a_zip_that_is_damaged_too_large_or_writes_elsewhere_is_refused(name, change, message, tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"word" * 250)
    path.write_bytes(change(path.read_bytes()))
    if name == "large":
        monkeypatch.setattr(verify, "MOST", 999)
    with pytest.raises(InputError, match=f"a.zip' {message}.*; create it again"):
        verify.unpack(path, tmp_path / "to" / "here")
    assert not [*tmp_path.rglob("outside")] and not Path("/tmp/outside").exists()


def test_every_check_of_the_zoo_passes(tmp_path):
    found = verify.check(release.pack("neuroseg3d", str(tmp_path)), SCHEMA if SCHEMA.is_file() else None)
    unchecked = set() if SCHEMA.is_file() else {"metadata_schema"}  # it would be downloaded
    assert {name for name, fault in found.items() if fault} <= unchecked and len(found) == 15, found


def test_the_zoo_checks_run_the_packed_weights_and_do_not_change_them(tmp_path, monkeypatch):
    """The network has fewer modalities and was trained on data with other file names and label values."""
    monkeypatch.chdir(ROOT)
    settings = {"cohort": "brats2023_gli", "modalities": ["FLAIR", "T1ce"], "norm": "batch"}
    settings |= {"patch_size": [64] * 3, "window": [64] * 3}
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml")
    parser.update(settings)
    save_checkpoint(to_float16(parser.get_parsed_content("network_def").state_dict()), tmp_path / "model.pt")
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
    """A copy of a release with one file changed or removed."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for entry in source.namelist():
            text = source.read(entry).decode()
            text = change(text) if entry.endswith(name) else text
            if text is not None:
                copy.writestr(entry, text)
    return target


FAULTS = [
    ("required_files", "LICENSE", lambda text: None),
    ("version_in_changelog", "metadata.json", lambda text: re.sub('"version": ".*?"', '"version": "0.9.0"', text)),
    ("json_style", "train.json", lambda text: json.dumps(json.loads(text), indent=2)),
    ("whitespace", "docs/README.md", lambda text: text + "\n\n"),
    ("python_style", "losses.py", lambda text: text + "import os\n"),
    # the zoo's isort treats the packages of the bundle as third-party, so their imports are not a separate block
    ("python_style", "scores/tables.py", lambda text: text.replace("\nfrom tumour", "\n\nfrom tumour", 1)),
    ("train_properties_and_run", "train.json", lambda text: text.replace('"max_epochs"', '"epochs_at_most"')),
    ("network_in_and_out", "metadata.json", lambda text: text.replace('"num_channels": 3', '"num_channels": 2')),
]


@pytest.mark.parametrize(("check", "file", "change"), FAULTS)
def test_a_check_fails_if_the_release_is_wrong(check, file, change, tmp_path):
    archive = release.pack(BUNDLES[0], str(tmp_path))
    (tmp_path / "wrong").mkdir()
    wrong = broken(archive, tmp_path / "wrong" / archive.name, file, change)
    with pytest.raises(Exception) as error:
        getattr(verify.Release(wrong, tmp_path, None), check)()
    assert str(error.value)
