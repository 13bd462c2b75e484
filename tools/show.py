"""Print what a bundle's layers merge to: `python -m tools.show bundles/neuroseg3d/args.yaml [key]`."""

from __future__ import annotations

import fire
import yaml
from monai.bundle import ConfigParser


def merged(args_file: str) -> ConfigParser:
    """The merged, unresolved config of a bundle, with the settings of its args file."""
    args = ConfigParser.load_config_file(args_file)
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
