"""Write files atomically, so that an interrupted program leaves no incomplete file, and by one process at a time.

And what tells whether files, or the code that reads them, have changed since.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from tumour.errors import InputError, causes, of_the_system

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

    Raises:
        InputError: the file cannot be written; the message says why.
    """
    # files with a leading dot are no cases; the suffix stays; processes of several computers may have one number
    part = path.with_name(f".{secrets.randbelow(10**9)}.{path.name}")
    if path.exists() and not (path.is_file() or path.is_dir()):  # os.replace itself refuses a folder
        raise InputError(f"'{path}' is a device or a pipe, which a file would replace; give another path.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        with _locked(part):
            yield part
            os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch raises the second for a full disk
        reason = next((each for each in causes(error) if isinstance(each, OSError)), None)
        if reason is None:
            raise
        raise of_the_system(reason, path if reason.filename in (None, str(part)) else None) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def copy_file(source: str | Path, target: Path) -> None:
    """Copy the content of a file, atomically."""
    with atomic_write(target) as part:
        shutil.copyfile(source, part)


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


def unwritable(folder: Path) -> InputError | None:
    """Why nothing can be written to a folder, which is created if it does not exist; None if it can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
            file.flush()
    except OSError as error:
        return of_the_system(error, folder)
    return None


class Hold:
    """A lock on a folder for one kind of work, until this object is deleted or the process ends in whatever way.

    It is a file in the folder that names the computer and the process, so a folder that cannot be written to is noticed
    too. What a killed process left is taken over and deleted by the next.

    Args:
        folder: the folder; created if it does not exist.
        work: what is done there; other work may be done there at the same time.

    Raises:
        InputError: another process does the same there, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, work: str) -> None:
        path = folder / f".{work}.lock"
        try:
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                file = open(path, "a+", encoding="utf-8")
                locked = _lock(file)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
                file.close()  # the process that held it has just deleted it
            if not locked:
                file.seek(0)
                holder = file.read() or "another process"
                file.close()
                raise InputError(
                    f"'{folder}' is in use for {work} by {holder}; wait until it ends, or give another folder."
                )
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        except OSError as error:
            raise of_the_system(error, folder) from error
        weakref.finalize(self, _release, file, path, os.getpid(), new)


def remove_locks(folder: Path) -> None:
    """Delete the locks below a folder that killed processes left."""
    for path in folder.rglob(".*.lock"):
        with suppress(InputError):
            Hold(path.parent, path.name[1:].removesuffix(".lock"))  # released at once


def _lock(file: TextIO) -> bool:
    """Lock a file for this process, but not for those that it starts; False if another process has locked it."""
    try:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False  # else: a file system without locks
    return True


def _release(file: TextIO, path: Path, process: int, new: bool) -> None:
    own = process == os.getpid()  # not in a copy of it, as the workers of a data loader are
    with suppress(OSError):
        if own:
            path.unlink(missing_ok=True)  # before the lock is released
        file.close()
        if own and new:
            path.parent.rmdir()  # if nothing was written, as when the run was refused


def save_text(text: str, path: Path) -> None:
    """Write text as UTF-8, atomically."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def save_json(content: Any, path: Path) -> None:
    """Write a value as JSON, atomically."""
    save_text(json.dumps(content, indent=4) + "\n", path)


def size_and_times(path: str) -> tuple[int, int, int]:
    """What changes with a file, or with the files of a folder: bytes and two times in ns; zeros where it is missing.

    The second time cannot be set: it changes even if a program that copies or edits a file restores the first.
    """
    try:
        states = [_state(file) for file in (Path(path), *sorted(Path(path).glob("*")))]  # with the files of a folder
    except OSError:
        return (0, 0, 0)
    sizes, changed, touched = zip(*states, strict=True)
    return sum(sizes), max(changed), max(touched)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        state = path.stat()
    except OSError:  # a link to a missing file
        state = path.lstat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def sha256_of(path: Path) -> str:
    """The SHA-256 of the content of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def hash_of_code() -> str:
    """A hash of the code of this program and of the version of MONAI: others may read or judge a file differently."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py"))]
    return hashlib.blake2b(b"".join(code) + version("monai").encode()).hexdigest()
