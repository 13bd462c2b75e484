"""Fetch a data set that is free to download: `python -m tools.download --cohort msd --output DIR`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from monai.apps import DecathlonDataset, download_and_extract
from monai.apps.utils import HashCheckError
from tumour.errors import InputError, command_line

TASK = "Task01_BrainTumour"


def download(
    cohort: str, output: str = "data", url: str = DecathlonDataset.resource[TASK], md5: str = DecathlonDataset.md5[TASK]
) -> str:
    """Download and unpack Task01 of the Medical Segmentation Decathlon (7 GB); run again after a break.

    What is there already, as an archive whose hash is right or unpacked as a whole, is not fetched or unpacked again.

    Args:
        cohort: msd; all others need a registration.
        output: folder to unpack into.
        url: where the archive is.
        md5: its hash.

    Raises:
        InputError: the cohort is another, the archive cannot be fetched, or its hash is wrong.
    """
    if cohort != "msd":
        raise InputError(
            f"{cohort} needs a registration: download it from https://www.synapse.org/brats, unpack it and name its "
            "folder by --dataset_dir (DATA with make). Only msd can be fetched."
        )
    folder, draft = Path(str(output)), Path(str(output), ".unpacking")
    target = folder / TASK
    if target.is_dir():
        return f"'{target}' is there already; delete it to unpack it anew."
    archive = folder / Path(url).name
    shutil.rmtree(draft, ignore_errors=True)
    try:
        download_and_extract(url, archive, draft, hash_val=md5, hash_type="md5", progress=sys.stderr.isatty())
    except HashCheckError as error:
        raise InputError(f"The hash of '{archive}' is not {md5}; delete it if it is there, and run again.") from error
    except Exception as error:  # MONAI raises a bare one without a network
        why = str(error).splitlines()[0][:80]
        raise InputError(
            f"'{url}' cannot be fetched ({why}); check the network and run again, or put the archive at '{archive}'."
        ) from error
    os.replace(draft / TASK, target)
    shutil.rmtree(draft)
    archive.unlink()
    return f"msd is in '{target}'; train with COHORT=msd DATA={target}."


def main() -> None:
    command_line(download, "tools.download")


if __name__ == "__main__":
    main()
