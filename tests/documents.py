"""The commands in the Markdown files, as a reader would type them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

PAST = {"CHANGELOG.md", "benchmarks/RESULTS.md"}  # commands of their time
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:make|python|pytest|docker|conda|pip|\.venv/\S+) [^`]+)`")


def documents() -> list[Path]:
    """The Markdown files that git knows."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in sorted({*listed} - PAST) if (ROOT / name).is_file()]


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a language in a document."""
    return [text for name, text in FENCE.findall(path.read_text(encoding="utf-8")) if name == language]


def commands(path: Path) -> Iterator[str]:
    """The commands in the blocks without a language or of a shell, and those between backticks; without comments."""
    for language in ("", "powershell"):
        for block in blocks(path, language):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                if command := re.sub(r"(^|\s{2,})#.*", "", line).strip():
                    yield command
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    yield from (" ".join(command.split()) for command in INLINE.findall(text))
