"""Download a data set that needs no registration.

python -m tools download --cohort msd --output DIR
"""

import os
import shutil
import sys
from pathlib import Path

from monai.apps import DecathlonDataset, download_and_extract
from monai.apps.utils import HashCheckError
from tumour.errors import InputError, OptionError

TASK = "Task01_BrainTumour"


def download(
    cohort: str, output: str = "data", url: str = DecathlonDataset.resource[TASK], md5: str = DecathlonDataset.md5[TASK]
) -> str:
    """Download and unpack Task01 of the Medical Segmentation Decathlon (7 GB).

    A complete archive or an unpacked data set from an earlier call is used again.

    Args:
        cohort: msd; all others need a registration.
        output: folder to unpack into.
        url: address of the archive.
        md5: its MD5 hash.

    Raises:
        InputError: the cohort is not msd, the archive cannot be downloaded, or its hash is wrong.
    """
    if cohort != "msd":
        raise OptionError(
            f"{cohort} needs a registration; only msd can be downloaded without one. Get it from "
            "https://www.synapse.org/brats, unpack it and give its folder as --dataset_dir (DATA with make)."
        )
    folder, draft = Path(output), Path(output, ".unpacking")
    target = folder / TASK
    if target.is_dir():
        return f"'{target}' already exists; delete it to download it again."
    archive = folder / Path(url).name
    shutil.rmtree(draft, ignore_errors=True)
    try:
        download_and_extract(url, archive, draft, hash_val=md5, hash_type="md5", progress=sys.stderr.isatty())
    except HashCheckError as error:
        raise InputError(f"The hash of '{archive}' is not {md5}; delete it if it exists, and run again.") from error
    except Exception as error:  # MONAI raises a plain Exception if it is offline
        why = str(error).splitlines()[0][:80]
        raise InputError(
            f"'{url}' cannot be downloaded ({why}); check the network and run again, or put the archive at '{archive}'."
        ) from error
    if not (draft / TASK).is_dir():
        raise InputError(f"'{archive}' does not contain {TASK}; delete it, and run again.")
    os.replace(draft / TASK, target)
    shutil.rmtree(draft)
    archive.unlink()
    return f"msd is in '{target}'; train with COHORT=msd DATA={target}."
