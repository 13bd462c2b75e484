"""The folders that a run writes to, checked before any work."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tumour.cases.case import Cases
from tumour.errors import OptionError, require_text
from tumour.files import Hold, unwritable
from tumour.maps.writer import require_own
from tumour.processes import rank


class Claim:
    """The folders of a run: it may write to them, no other process does the same work there, and no input is there.

    The processes that torchrun starts are one run. The folders are released at the end of a `with` block, when this
    object is deleted, or when the process ends in whatever way.

    Args:
        work: what the run does.
        folders: what only one process may write to at a time.
        segmentations: the folder of label maps, if the run writes them.
        cases: the cases of its label maps.
        label_folder: the name of a folder of references in the data set, if it has one.

    Raises:
        InputError: a folder cannot be written to, is in use, or holds files that would be replaced.
    """

    def __init__(
        self,
        work: str,
        folders: Sequence[str],
        segmentations: str = "",
        cases: Cases | None = None,
        label_folder: str = "",
    ) -> None:
        self.holds: list[Hold] = []
        if rank():
            return
        maps = [Path(segmentations)] if segmentations else []
        for folder in [*map(Path, folders), *maps]:
            require_text("The folder", str(folder))
            require_no_weights_of_a_bundle(folder)
        if maps and cases:
            require_no_inputs(maps[0], cases, label_folder)
        self.holds = [Hold(folder, work) for folder in dict.fromkeys(map(Path, folders))]
        for fault in filter(None, map(unwritable, maps)):
            raise fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.holds.clear()


def require_no_weights_of_a_bundle(folder: Path) -> None:
    """Refuse the folder of the weights that come with a bundle."""
    real = folder.resolve()
    if real.name == "weights" and (real.parent / "configs").is_dir():
        raise OptionError(f"'{folder}' holds the weights of the bundle, which are not replaced; give another folder.")


def require_no_inputs(segmentations: Path, cases: Cases, label_folder: str) -> None:
    """Refuse a folder for label maps where they would be next to, or replace, files of the data set."""
    real = segmentations.resolve()
    if real in cases.folders() or (label_folder and real.name == label_folder):
        raise OptionError(f"'{segmentations}' holds files of the data set; give another --segmentations.")
    require_own([segmentations / f"{case.name}.nii.gz" for case in cases.complete])
