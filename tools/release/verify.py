"""Check a release as the model zoo's CI does.

python -m tools verify neuroseg3d

The zip is unpacked in an empty folder; its code runs in processes that cannot import from this repository.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from tumour.errors import InputError, OptionError

from tools.bundles import bundles
from tools.command import flags
from tools.patients.synthetic import make_patients
from tools.release.metadata import metadata
from tools.release.pack import LARGE, PACKAGES

REQUIRED = ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"]
TEXTS = (".py", ".json", ".md", ".txt", ".yml", ".conf")
REQUIRED += [f"configs/{name}.json" for name in ("metadata", "train", "evaluate", "inference", "multi_gpu_train")]
MOST = 2**30  # bytes of an unpacked release
TINY = {"cohort": "brats2021", "workers": 0, "overlap": 0, "precision": "float32"}
TRAINING = {"patch_size": [32, 32, 32], "epochs": 1, "iterations_per_epoch": 2, "val_interval": 1, "resume": False}
WORKFLOW = """
import sys, json
from monai.bundle import ConfigWorkflow
files, kind, settings = map(json.loads, sys.argv[1:])
workflow = ConfigWorkflow(config_file=files, workflow_type=kind, **settings)
workflow.initialize()
missing = workflow.check_properties()
assert not missing, f"properties are missing or have another id: {missing}"
workflow.run()
workflow.finalize()
"""
LOAD = """
import json, sys
from monai.bundle import load
name, kind = map(json.loads, sys.argv[1:])
assert load(name, bundle_dir="..", workflow_type=kind, source="github", repo="a/b/c").state_dict()
"""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into a folder, and nothing outside it.

    Raises:
        InputError: it is damaged, states too much data, or has a file that would be written elsewhere.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            size = sum(entry.file_size for entry in content.infolist())
            away = [name for name in content.namelist() if name.startswith("/") or ".." in name.split("/")]
            if size > MOST or away:
                fault = f"'{away[0]}' lies outside it" if away else f"it states {size:,} bytes, over {MOST:,}"
                raise InputError(f"'{archive}' is not unpacked, {fault}; create it again with make release.")
            content.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last if encrypted
        raise InputError(f"'{archive}' is damaged ({error}); create it again with make release.") from error


class Release:
    """An unpacked release, and synthetic patients next to it. Each method is a check that raises an error if it fails.

    Args:
        archive: the zip.
        scratch: an empty folder.
        schema: a copy of the metadata schema; default: MONAI downloads it from the address in the metadata.
    """

    def __init__(self, archive: Path, scratch: Path, schema: Path | None) -> None:
        self.archive, self.schema = archive, schema
        self.name = archive.name.rsplit("_v", 1)[0]
        self.scratch, self.folder = scratch, scratch / "home" / self.name
        unpack(archive, self.folder.parent)
        models = self.folder / "models"
        # the training must not overwrite the weights of the release
        self.trained = scratch / "trained" if (models / "model.pt").is_file() else models

    @cached_property
    def cohort(self) -> str:
        return json.loads((self.folder / "configs/inference.json").read_text())["defaults"]["cohort"]

    @cached_property
    def data(self) -> Path:
        make_patients(self.scratch / "patients", cases=6, size=40, cohort=self.cohort)
        return self.scratch / "patients"

    @cached_property
    def settings(self) -> dict[str, Any]:
        return TINY | {"cohort": self.cohort, "dataset_dir": str(self.data)}

    def run(self, *command: str) -> None:
        """Run Python in the bundle's folder."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise ValueError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.stdout[-300:])

    def workflow(self, kind: str, *files: str) -> None:
        settings = self.settings | (TRAINING | {"ckpt_dir": str(self.trained)} if kind == "train" else {})
        paths = [f"configs/{name}.json" for name in files]
        self.run("-c", WORKFLOW, json.dumps(paths), json.dumps(kind), json.dumps(settings))

    def one_folder_named_as_the_bundle(self) -> None:
        tops = {name.split("/")[0] for name in zipfile.ZipFile(self.archive).namelist()}
        assert tops == {self.name}, f"top folders are {sorted(tops)}"
        version = json.loads((self.folder / "configs/metadata.json").read_text())["version"]
        assert self.archive.name == f"{self.name}_v{version}.zip", f"its version is {version}"

    def required_files(self) -> None:
        missing = [name for name in REQUIRED if not (self.folder / name).is_file()]
        assert not missing, f"{', '.join(missing)} is missing"

    def sizes_and_large_files(self) -> None:
        large = [path.name for path in self.folder.rglob("*") if path.stat().st_size > LARGE]
        assert not large, f"{', '.join(large)} is over 25 MB"
        if (self.folder / "large_files.yml").is_file():
            for entry in yaml.safe_load((self.folder / "large_files.yml").read_text())["large_files"]:
                assert entry["url"] and entry["hash_val"] and entry["hash_type"], f"{entry['path']} has no url or hash"

    def version_in_changelog(self) -> None:
        metadata = json.loads((self.folder / "configs/metadata.json").read_text())
        assert metadata["version"] in metadata["changelog"], f"{metadata['version']} is not in the changelog"

    def metadata_schema(self) -> None:
        if self.schema:
            (self.folder / "eval").mkdir(exist_ok=True)
            shutil.copy(self.schema, self.folder / "eval" / "schema.json")  # as the zoo does, to avoid a download
        names = ["--meta_file", "configs/metadata.json", "--filepath", "eval/schema.json"]
        self.run("-m", "monai.bundle", "verify_metadata", *names)

    def json_style(self) -> None:
        for path in sorted(self.folder.glob("configs/*.json")):
            text = path.read_text()
            assert text == json.dumps(json.loads(text), indent=4) + "\n", f"{path.name} is not indented by 4"

    def whitespace(self) -> None:
        for path in self.folder.rglob("*"):
            if path.suffix in TEXTS and path.stat().st_size:
                lines = path.read_text().split("\n")
                assert lines[-1] == "" and lines[-2] != "", f"{path.name} does not end in one newline"
                assert not any(line != line.rstrip() for line in lines), f"{path.name} has trailing whitespace"

    def python_style(self) -> None:
        """Ruff instead of flake8, isort and black, with the settings of the zoo."""
        style = ["--isolated", "--line-length", "120"]
        for setting in ('known-first-party=["models"]', f"known-third-party={json.dumps(PACKAGES)}"):  # none of its own
            style += ["--config", f"lint.isort.{setting}"]
        self.run("-m", "ruff", "check", "--select", "E,F,W,I", "--output-format", "concise", *style, *PACKAGES)
        self.run("-m", "ruff", "format", "--check", *style, *PACKAGES)

    def train_properties_and_run(self) -> None:
        self.workflow("train", "train")

    def train_with_evaluate_on_top_properties_and_run(self) -> None:
        self.workflow("train", "train", "evaluate")

    def evaluate_alone_runs(self) -> None:
        settings = self.settings | {"ckpt_dir": self.trained}
        self.run("-m", "monai.bundle", "run", "--config_file", "configs/evaluate.json", *flags(settings))

    def inference_properties_and_run(self) -> None:
        self.workflow("infer", "inference")

    def network_in_and_out(self) -> None:
        names = ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"]
        self.run("-m", "monai.bundle", "verify_net_in_out", "network_def", *names)

    def torchscript_export(self) -> None:
        target = "models/verify_model.ts"
        names = ["--filepath", target, "--config_file", "configs/inference.json"]
        self.run("-m", "monai.bundle", "ckpt_export", "network_def", *names)
        self.run("-c", f"import torch; torch.jit.load('{target}')")

    def load_for_training_and_inference(self) -> None:
        for kind in ("train", "inference"):
            self.run("-c", LOAD, json.dumps(self.name), json.dumps(kind))


CHECKS: list[Callable[[Release], None]] = [
    value for key, value in vars(Release).items() if callable(value) and key not in ("__init__", "run", "workflow")
]


def check(archive: Path, schema: Path | None = None) -> dict[str, str]:
    """The fault that each check found, by the name of the check; an empty string if it passed."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        release = Release(archive, Path(scratch), schema)
        for test in CHECKS:
            try:
                test(release)
                found[test.__name__] = ""
            except Exception as error:
                found[test.__name__] = str(error) or type(error).__name__
            print(f"{'FAIL' if found[test.__name__] else 'pass'}  {test.__name__}  {found[test.__name__]}", flush=True)
    return found


def verify(bundle: str = "all", output: str = "dist", schema: str = "") -> None:
    """Check the zip of one bundle, or of all.

    Args:
        bundle: a folder of bundles/, or all.
        output: folder of the zips.
        schema: a copy of the metadata schema; default: it is downloaded from the address in metadata.json.
    """
    failed = 0
    for name in bundles() if bundle == "all" else [bundle]:
        archive = Path(output) / f"{name}_v{metadata(name)['version']}.zip"
        if not archive.is_file():
            raise OptionError(f"'{archive}' does not exist; create it with make release BUNDLE={name}.")
        print(archive)
        failed += sum(map(bool, check(archive, Path(schema).resolve() if schema else None).values()))
    if failed:
        raise InputError(f"{failed} checks failed.")
