"""Pack a bundle in the model zoo format: configs, model card, weights and Python code.

python -m tools release neuroseg3d
"""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import yaml
from monai.bundle import ConfigParser
from tumour.errors import InputError, OptionError
from tumour.files import atomic_write, sha256_of
from tumour.maps.aftertreatment import FILE as TREATMENT
from tumour.runs.checkpoints import PATIENTS, load_weights, read_weights
from tumour.runs.trained import SETTINGS, require_same, settings_of
from tumour.scores.evaluation import RECORD
from tumour.scores.quality import FILE as QUALITY

from tools.bundles import COMMON, ROOT, bundles
from tools.release.card import card
from tools.release.configs import configs
from tools.release.metadata import metadata, release_metadata

PACKAGES = ("custom_components", "tumour")  # the Python code in a release
RECORDS = (PATIENTS, SETTINGS, RECORD, QUALITY, TREATMENT)  # what is recorded next to the weights
LARGE = 25 * 2**20  # bytes; the zoo wants larger files behind a URL


def checkpoint_of(bundle: str) -> Path:
    """The weights of a bundle: those of the user's own training, else those that come with this repository."""
    own, included = (ROOT / "bundles" / bundle / folder / "model.pt" for folder in ("models", "weights"))
    return included if included.is_file() and not own.is_file() else own


def require_fit(bundle: str, checkpoint: Path) -> None:
    """Refuse weights of another network than a release of the bundle would build.

    Raises:
        InputError: the weights do not fit, for example because `network_def` was set on the command line.
    """
    config = configs(bundle, settings_of(str(checkpoint.parent)))["inference"] | {"uses_weights": False}
    weights, parser = read_weights(checkpoint), ConfigParser(config)
    network, settings, cohorts = map(parser.get_parsed_content, ("network_def", "recorded", "known_cohorts"))
    try:
        require_same(settings, cohorts, network, checkpoint)
        load_weights(network, weights, checkpoint)
    except InputError as error:
        rest = f"set anything else about the network in bundles/{bundle}/configs/train.yaml"
        raise InputError(
            f"{error} A release takes size, modalities and head from {SETTINGS} next to it; {rest}."
        ) from error


def content(bundle: str, checkpoint: Path | None = None, url: str = "") -> dict[str, bytes]:
    """All files of a release, by their path in the bundle's folder; without a checkpoint it has no weights."""
    texts = configs(bundle, settings_of(str(checkpoint.parent)) if checkpoint else {})
    inference = texts["inference"]
    texts["metadata"] = release_metadata(bundle, inference, checkpoint)
    files = {f"configs/{name}.json": json.dumps(text, indent=4).encode() + b"\n" for name, text in texts.items()}
    files["docs/README.md"] = card(bundle, inference, checkpoint, url).encode()
    return files | copied_files() | (weight_files(checkpoint, url) if checkpoint else {})


def copied_files() -> dict[str, bytes]:
    """The files that every release contains unchanged, among them all of its Python code."""
    paths = {"LICENSE": ROOT / "LICENSE", "configs/logging.conf": COMMON / "logging.conf"}
    paths["docs/data_license.txt"] = COMMON / "data_license.txt"
    for package in PACKAGES:
        paths |= {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.glob(f"{package}/**/*.py"))}
    return {name: path.read_bytes() for name, path in paths.items()}


def weight_files(checkpoint: Path, url: str = "") -> dict[str, bytes]:
    """`model.pt`, or its URL and hash, and what is recorded next to it."""
    weights = checkpoint.read_bytes()
    files = {"models/model.pt": weights}
    if url:
        entry = {"path": "models/model.pt", "url": url}
        entry |= {"hash_val": hashlib.sha256(weights).hexdigest(), "hash_type": "sha256"}
        files = {"large_files.yml": yaml.safe_dump({"large_files": [entry]}, sort_keys=False).encode()}
    records = [path for path in map(checkpoint.with_name, RECORDS) if path.is_file()]
    return files | {f"models/{path.name}": path.read_bytes() for path in records}


def pack(bundle: str, output: str | Path = "dist", checkpoint: Path | None = None, url: str = "") -> Path:
    """Write the zip of one bundle: the same files give the same bytes, whatever the date."""
    files = content(bundle, checkpoint, url)
    size = len(files.get("models/model.pt", b""))
    if size > LARGE:
        megabytes = f"{size / 2**20:.0f} MB, over the zoo's limit of {LARGE / 2**20:.0f} MB"
        raise InputError(f"'{checkpoint}' has {megabytes}; upload it and give its address with URL=.")
    target = Path(output) / f"{bundle}_v{metadata(bundle)['version']}.zip"
    with atomic_write(target) as draft, zipfile.ZipFile(draft, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{bundle}/{name}")  # dated 1980
            entry.create_system, entry.external_attr, entry.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name], compresslevel=9)
    return target


def release(bundle: str = "all", output: str = "dist", weights: str = "", url: str = "") -> None:
    """Pack one bundle, or all, as `NAME_vVERSION.zip`.

    Args:
        bundle: a folder of bundles/, or all.
        output: folder for the zips.
        weights: the checkpoint to pack; default: `models/model.pt` of the bundle, else `weights/model.pt`, if any.
        url: where the weights will be uploaded, if they should not be in the zip.
    """
    if url and not re.fullmatch(r"https?://[^\s/]+/\S+", url):
        raise OptionError(f"URL is '{url}'; it must be the address of the weights, as https://host/model.pt.")
    if bundle == "all" and (weights or url):
        raise OptionError("WEIGHTS and URL belong to one bundle; name it with BUNDLE=.")
    for name in bundles() if bundle == "all" else [bundle]:
        checkpoint = Path(weights) if weights else checkpoint_of(name)
        has_weights = checkpoint.is_file()
        if (weights or url) and not has_weights:
            raise OptionError(f"'{checkpoint}' does not exist; train first, or name the checkpoint with WEIGHTS=.")
        if has_weights:
            require_fit(name, checkpoint)
        path = pack(name, output, checkpoint if has_weights else None, url)
        size, sha256 = path.stat().st_size / 1e6, sha256_of(path)
        print(f"{path}  {size:.1f} MB  sha256 {sha256}  weights {checkpoint if has_weights else 'none'}")
