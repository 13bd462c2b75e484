"""The bundles of this checkout, their folders, and the options that choose one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple
from tumour.errors import one_of

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
    return one_of({name: ROOT / "bundles" / name for name in bundles()}, bundle, "bundle")


def require_bundle(bundle: str, recipe: str = "") -> None:
    """Refuse the name of a bundle or recipe that does not exist; the message lists those that do."""
    folder_of(bundle)
    if recipe:
        one_of({path.stem: path for path in sorted(COMMON.glob("recipes/*.yaml"))}, recipe, "recipe")


def files_of(bundle: str, recipe: str = "", *on_top: str) -> dict[str, Any]:
    """The options that choose a bundle, a recipe on top of it if one is given, and config files on top of both."""
    require_bundle(bundle, recipe)
    files = [*([f"bundles/common/recipes/{recipe}.yaml"] if recipe else []), *on_top]
    return {"args_file": f"bundles/{bundle}/args.yaml", **({"+config_file": files} if files else {})}


def files_in(options: Mapping[str, Any]) -> list[str]:
    """The config files that options add."""
    return [*ensure_tuple(options.get("+config_file", ()))]
