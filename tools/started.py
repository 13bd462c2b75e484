"""The settings and files that long work in a folder was started with, so that it is continued only with the same."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from tumour.cases.case import Case
from tumour.errors import InputError, OptionError
from tumour.files import save_json
from tumour.records import read_json
from tumour.runs.checkpoints import hash_of_start
from tumour.runs.options import rules

STARTED = "settings.json"  # in the folder
OF_THE_MACHINE = ("device", "workers", "cache", "compile", "strict", "resume", "report_at_end", "fold")


def settings_in(parser: ConfigParser) -> dict[str, Any]:
    """The settings of a merged config by name, without folders and what only concerns the machine.

    Of the weights that a training starts from, their hash.
    """
    return hash_of_start(parser.get_parsed_content("start_from")) | {
        name: parser[name] if rule["type"] == "reference" else parser.get_parsed_content(name)
        for name, rule in rules(parser["settings"])
        if rule["type"] != "path" and name not in OF_THE_MACHINE and name.split("::")[0] in parser
    }


def hash_of(case: Case) -> str:
    """A hash of the label of a case and of the sizes of its scans, whose voxels would take long to read."""
    sizes = [Path(image).stat().st_size for image in case.images]
    return hashlib.blake2b(Path(str(case.label)).read_bytes() + f"{sizes}".encode(), digest_size=8).hexdigest()


def require_same_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of new work in a folder; refuse others than those with which it was started."""
    path = output / STARTED
    shape = {"patients": {str: int}, "files?": {str: str}} if "patients" in settings else {str: object}
    before: dict[str, Any] = read_json(path, shape) if path.is_file() else dict(settings)
    if "files" in settings:
        before.setdefault("files", settings["files"])  # earlier versions did not write it
    for name in dict.fromkeys([*before, *settings]):
        if before.get(name) != settings.get(name):
            was, now = before.get(name, "unset"), settings.get(name, "unset")
            if name == "files":
                other = min(case for case in {*was, *now} if was.get(case) != now.get(case))
                raise InputError(
                    f"'{output}' was started with other files of {other}; restore its label and scans, or give another "
                    "folder."
                )
            if name == "patients":
                gone, new = (", ".join(sorted({*a} - {*b})) or "none" for a, b in ((was, now), (now, was)))
                raise InputError(
                    f"'{output}' was started with other patients: {gone} removed, {new} added; restore the data, or "
                    "give another folder."
                )
            if name == "started_from":
                raise OptionError(
                    f"'{output}' was started from other weights, or from random ones; set start_from back, or give "
                    "another folder."
                )
            raise OptionError(
                f"'{output}' was started with {name} = {was}, but {name} is now {now}; set it back, or give another "
                "folder."
            )
    save_json(settings, path)
