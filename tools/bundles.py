"""The bundles of this checkout, and their folders."""

from pathlib import Path

from tumour.errors import OptionError

ROOT = Path(__file__).parents[1]
COMMON = ROOT / "bundles" / "common"


def bundles() -> list[str]:
    """The names of all bundles."""
    return sorted(path.parent.name for path in ROOT.glob("bundles/*/args.yaml"))


def folder_of(bundle: str) -> Path:
    """The folder of a bundle.

    Raises:
        OptionError: there is none of this name; the message lists the bundles.
    """
    if bundle not in bundles():
        raise OptionError(f"BUNDLE must be all or one of {', '.join(bundles())}; it is '{bundle}'.")
    return ROOT / "bundles" / bundle
