"""The checks of the zoo start Python once, not for each command."""

from types import SimpleNamespace

import pytest

from tests.interpreter import run
from tools.release import verify


@pytest.fixture(autouse=True)
def one_start(monkeypatch):
    monkeypatch.setattr(verify, "subprocess", SimpleNamespace(run=run))
