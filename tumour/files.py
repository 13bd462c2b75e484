"""Write files atomically: an interrupted program leaves no incomplete file."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]


def probability_file(segmentations: str | Path, case: str, region: str) -> Path:
    """The file with the probabilities of a region of a case, by the folder of its label map."""
    return Path(f"{str(segmentations).rstrip('/')}_probabilities", f"{case}_{region}.nii.gz")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` at the end of the block, or deleted if the block fails.

    A process that is killed leaves its temporary file, which the next one that writes `path` deletes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    part = path.with_name(f".{os.getpid()}.{path.name}")  # files with a leading dot are no cases; the suffix stays
    try:
        with _locked(part):
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Delete the temporary files of `path` that no process writes any more, wherever those processes ran."""
    name = re.compile(rf"\.\d+\.{re.escape(path.name)}")
    for part in path.parent.glob(".*") if fcntl else ():
        if name.fullmatch(part.name):
            try:
                with open(part, "r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while a process writes it
                    if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                        part.unlink()
            except OSError:
                continue


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Create a file and hold a lock on it, which the system releases when the process ends in whatever way."""
    if not fcntl:
        yield
        return
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a file system without locks
            pass
        yield


def save_json(content: Any, path: Path) -> None:
    """Write a value as JSON, atomically."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
