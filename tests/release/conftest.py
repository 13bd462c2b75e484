"""What would take most of the time of these tests: Python starts once (`tests.interpreter`), exports are timed once."""

from types import SimpleNamespace

import pytest

from tests.interpreter import run
from tools.release import export, verify


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(verify, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(export, "ROUNDS", 1)
