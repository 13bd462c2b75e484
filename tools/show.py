"""Print what a bundle's layers merge to: `python -m tools.show bundles/neuroseg3d/args.yaml [key]`."""

from __future__ import annotations

import fire
import yaml
from monai.bundle import ConfigParser
from monai.bundle.scripts import update_kwargs


def merged(args_file: str, recipe: str = "") -> ConfigParser:
    """The merged, unresolved config of a bundle, with the settings of its args file and of a recipe's file over it."""
    args = update_kwargs(args_file, **(ConfigParser.load_config_file(recipe) if recipe else {}))
    parser = ConfigParser()
    parser.read_config(args["config_file"])
    for key, value in args.items():
        if key not in ("config_file", "meta_file", "logging_file"):
            parser[key] = value
    return parser


def main(args_file: str, key: str = "") -> None:
    """Print the merged config, or one part of it, as YAML."""
    print(yaml.safe_dump(merged(args_file)[key], sort_keys=False, allow_unicode=True, width=120))


if __name__ == "__main__":
    fire.Fire(main)
