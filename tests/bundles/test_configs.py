"""Static promises of the configs: ids exist, references resolve, a variant sets only what it is allowed to."""

import json
import math
import re
import tomllib
from pydoc import locate

import pytest
import yaml
from ignite.engine import Engine
from monai.bundle import ComponentLocator, ConfigParser

from tests.conftest import BUNDLES, ROOT
from tools.networks import cost
from tools.show import merged

pytestmark = pytest.mark.usefixtures("at_the_root")

LAYERS = "settings cohorts brats network train losses inference evaluate fit report prepare".split()
ZOO_IDS = """bundle_root ckpt_dir output_dir dataset_dir device network_def network loss optimizer lr_scheduler
    val_interval initialize dataset dataloader inferer preprocessing postprocessing handlers evaluator
    training evaluating inferring fitting preparing segmenting returning""".split()
ZOO_IDS += [
    f"train::{part}"
    for part in "preprocessing dataset dataloader inferer postprocessing handlers key_metric trainer".split()
]
ZOO_IDS += [
    f"validate::{part}"
    for part in "preprocessing dataset dataloader inferer postprocessing handlers key_metric evaluator".split()
]
A_VARIANT_MAY_SET = {"network_def", "learning_rate", "loss", "patch_size", "batch_size"}
VARIANTS = {bundle: ROOT / "bundles" / bundle / "configs" / "train.yaml" for bundle in BUNDLES}
bundles = pytest.mark.parametrize("bundle", BUNDLES)


def args_file(bundle):
    return str(ROOT / "bundles" / bundle / "args.yaml")


def leaves(config, path=""):
    if isinstance(config, dict):
        for key, value in config.items():
            yield from leaves(value, f"{path}::{key}" if path else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from leaves(value, f"{path}::{index}")
    else:
        yield path, config


def test_there_are_the_four_bundles():
    assert {"unet3d", "attention_unet", "resunet", "neuroseg3d"} <= set(BUNDLES)


@bundles
def test_a_bundle_has_every_id_that_zoo_tools_look_up(bundle):
    parser = merged(args_file(bundle))
    missing = [name for name in ZOO_IDS if parser.get(name, None) is None]
    assert missing == []


@bundles
def test_every_reference_names_an_id_that_exists(bundle):
    parser = merged(args_file(bundle))
    parser.read_meta(str(ROOT / f"bundles/{bundle}/configs/metadata.json"))
    dangling = []
    for path, value in leaves(parser.get()):
        if isinstance(value, str) and value[:1] in "@$":
            for name in re.findall(r"@([\w:]+)", value):
                try:
                    parser[name]
                except (KeyError, ValueError, TypeError, IndexError):
                    dangling.append(f"{path}: {name}")
    assert dangling == []


@pytest.mark.parametrize("name", ["multi_gpu_train", "multi_gpu_evaluate", "multi_gpu_infer", "inference_trt"])
def test_an_overlay_changes_only_ids_that_exist(name):
    parser = merged(args_file(BUNDLES[0]))
    overlay = yaml.safe_load((ROOT / f"bundles/common/{name}.yaml").read_text())
    unknown = [key for key in overlay if key.lstrip("+") not in parser and key != "finalize"]
    assert overlay and unknown == []


@bundles
def test_every_target_can_be_imported(bundle):
    targets = [value for path, value in leaves(merged(args_file(bundle)).get()) if path.endswith("_target_")]
    locator = ComponentLocator()
    unknown = [t for t in set(targets) if not locator.get_component_module_name(t) and locate(t) is None]
    assert targets and unknown == []


@bundles
def test_a_variant_is_short_and_sets_only_what_it_may(bundle):
    text = VARIANTS[bundle].read_text()
    assert len(text.splitlines()) <= 60
    assert {key.split("::")[0].split("#")[0] for key in yaml.safe_load(text)} <= A_VARIANT_MAY_SET


@bundles
def test_the_header_of_a_variant_gives_its_cost_and_its_training_command(bundle):
    (small, operations), (full, more) = (cost(args_file(bundle), size=size) for size in ("fast", "full"))
    header = VARIANTS[bundle].read_text()
    assert f"{small:.2f} M parameters and {operations:.1f} G multiply-adds for a 96³ patch" in header
    assert f"at size full {full:.2f} M and {more:.1f} G" in header
    assert f"make train BUNDLE={bundle} " in header


@bundles
def test_every_variant_merges_the_same_files_in_the_same_order(bundle):
    files = ConfigParser.load_config_file(args_file(bundle))["config_file"]
    assert files == [f"bundles/common/{name}.yaml" for name in LAYERS] + [f"bundles/{bundle}/configs/train.yaml"]


@bundles
def test_a_variant_has_its_name_version_and_changelog(bundle):
    metadata = json.loads((ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())
    assert {"name", "version", "changelog", "description", "references"} <= set(metadata)
    assert metadata["version"] in metadata["changelog"]


@pytest.mark.parametrize("name", LAYERS)
def test_a_config_file_has_no_macros_and_no_numbers_that_yaml_reads_as_strings(name):
    text = (ROOT / "bundles" / "common" / f"{name}.yaml").read_text()
    values = [value for _, value in leaves(yaml.safe_load(text)) if isinstance(value, str)]
    assert not [value for value in values if value.startswith("%") or re.fullmatch(r"[-+]?\d+e[-+]?\d+", value)]


def test_the_versions_in_the_metadata_are_those_of_the_environment():
    pins = dict(re.findall(r"- ([\w-]+)==(\S+)", (ROOT / "environment.yml").read_text()))
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["tracking"]
    metadata = json.loads((ROOT / "bundles" / "common" / "metadata.json").read_text())
    names = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    versions = {name: metadata[key] for name, key in names.items()} | metadata["required_packages_version"]
    assert {name: pins.get(name) for name in versions} == versions
    assert dict(each.split("==") for each in extra) == metadata["optional_packages_version"]


ATTENTIVE = [bundle for bundle, path in VARIANTS.items() if "network_def::network::attention:" in path.read_text()]


@pytest.mark.parametrize("bundle", ATTENTIVE)
@pytest.mark.parametrize("attention", ["spatial", "channel", "cbam", "none"])
def test_one_value_selects_the_attention(bundle, attention):
    parser = merged(args_file(bundle))
    parser["network_def::network::attention"] = attention
    names = {type(module).__name__ for module in parser.get_parsed_content("network_def").modules()}
    expected = {
        "spatial": {"SpatialAttention"},
        "channel": {"ChannelSELayer"},
        "cbam": {"ChannelAttention", "SpatialAttention"},
        "none": set(),
    }
    blocks = {"SpatialAttention", "ChannelSELayer", "ChannelAttention"}
    assert names & blocks == expected[attention]


def test_a_cpu_and_an_accelerator_have_different_defaults():
    names = ("size", "epochs", "iterations_per_epoch", "val_interval", "patch_size")
    gpu = ["full", 200, 250, 10, [128, 128, 128]]
    expected = {"cpu": ["fast", 10, 150, 2, [96, 96, 96]], "cuda": gpu, "cuda:1": gpu, "mps": gpu, "xpu": gpu}
    for device, budget in expected.items():
        parser = merged(args_file(BUNDLES[0]))
        parser["device"] = device
        assert [parser.get_parsed_content(name) for name in names] == budget


def test_the_learning_rate_rises_in_the_first_steps_and_then_falls_along_a_cosine_to_the_last(parsed_once):
    parser = merged(args_file(BUNDLES[0]))
    parser.update({"device": "cpu", "epochs": 4, "iterations_per_epoch": 10, "learning_rate": 0.1})
    number = next(n for n, each in enumerate(parser["train::handlers"]) if each["_target_"] == "LrScheduleHandler")
    handler, optimizer = (parser.get_parsed_content(name) for name in (f"train::handlers::{number}", "optimizer"))
    rates: list[float] = []
    engine = Engine(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    handler.attach(engine)
    engine.run(range(10), max_epochs=4)
    rising = [0.1 * step / 10 for step in range(10)]  # a quarter of 40 steps
    assert rates == pytest.approx(rising + [0.05 * (1 + math.cos(math.pi * step / 30)) for step in range(30)])


def test_an_unknown_size_or_cohort_is_refused_with_the_list_of_known_names():
    for setting, names in (("size", "fast, full"), ("cohort", "brats2018, .*msd")):
        parser = merged(args_file(BUNDLES[0]))
        parser[setting] = "huge"
        with pytest.raises(Exception) as error:
            parser.get_parsed_content("cohort_def" if setting == "cohort" else "network_shape")
        assert re.search(f"{setting} must be one of {names}; it is 'huge'", str(error.getrepr()))
