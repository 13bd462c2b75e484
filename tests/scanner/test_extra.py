"""Without the extra packages, one sentence says how to install them."""

import re
import tomllib

import pytest
from tumour.errors import InputError
from tumour.scanner.extra import require

from tests.conftest import ROOT


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(InputError, match="no-such-package is not installed; run `make setup EXTRA=scanner`"):
        require("no-such-package")


def test_every_package_that_is_required_is_in_the_extra():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["scanner"]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tumour" / "scanner").glob("*.py"))
    wanted = set(re.findall(r'require\("([\w-]+)"\)', sources))
    assert wanted and wanted <= {entry.split("==")[0] for entry in listed}
