"""The lock has the versions that environment.yml chooses, and hashes for all that pip installs from it."""

import re

import pytest

from tests.conftest import ROOT

CHOSEN = dict(
    re.findall(r"^ {6}- ([^= ]+)==(\S+)", (ROOT / "environment.yml").read_text(encoding="utf-8"), re.MULTILINE)
)
ENTRIES = re.findall(
    r"^([^\s#][^=;]*)==(\S+)([^\\]*)((?:\\\n +--hash=sha256:[0-9a-f]{64} ?)*)",
    (ROOT / "environment.lock").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize("name", sorted(CHOSEN.keys() - {"torch"}))
def test_the_lock_has_the_version_that_environment_yml_chooses(name):
    assert [version for locked, version, *_ in ENTRIES if locked == name] == [CHOSEN[name]], "run make lock"


def test_every_package_of_the_lock_has_one_version_per_python_and_a_hash():
    lines = re.findall(r"^[^\s#].*", (ROOT / "environment.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == len(ENTRIES) > len(CHOSEN) and all(hashes for *_, hashes in ENTRIES)
    places = [(name, marker.strip()) for name, _, marker, _ in ENTRIES]
    assert len(places) == len({*places})


def test_torch_and_what_only_it_needs_are_left_to_the_machine():
    """Their builds differ: of 5 GB with CUDA, or of 0.2 GB for the CPU alone."""
    assert not [name for name, *_ in ENTRIES if re.match("torch$|nvidia|cuda|triton", name)]
