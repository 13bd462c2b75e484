"""Print the merged config of a bundle.

python -m tools show bundles/neuroseg3d/args.yaml network_def
"""

from collections.abc import Sequence
from pathlib import Path

import yaml
from monai.bundle import ConfigParser
from tumour.errors import OptionError, nearest
from tumour.runs.layers import layers, merge
from tumour.runs.options import siblings


def merged(args_file: str, recipe: str = "", without: Sequence[str] = ()) -> ConfigParser:
    """The merged, unresolved config of a bundle, with the settings of its args file and, on top of them, a recipe.

    Args:
        args_file: lists the config files.
        recipe: path of a recipe.
        without: names of config files to leave out, such as `report`.
    """
    files, settings = layers({"args_file": args_file, "+config_file": [recipe] if recipe else []})
    return merge([path for path in files if Path(path).stem not in without], settings)


def show(args_file: str, key: str = "", recipe: str = "") -> None:
    """Print the merged config of a bundle, or one part of it, as YAML.

    Args:
        args_file: lists the config files of the bundle.
        key: the part; default: everything.
        recipe: path of a recipe to merge on top.
    """
    config = merged(args_file, recipe)
    if key and key not in config:
        part, _, name = key.replace("#", "::").rpartition("::")
        raise OptionError(f"There is no part '{key}'{nearest(name, siblings(config, key.replace('#', '::')))}.")
    print(yaml.safe_dump(config[key], sort_keys=False, allow_unicode=True, width=120))
