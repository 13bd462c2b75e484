"""Write files atomically: an interrupted program leaves no incomplete file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` at the end of the block, or deleted if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")  # files with a leading dot are no cases; the suffix stays
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save_json(content: Any, path: Path) -> None:
    """Write a value as JSON, atomically."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
