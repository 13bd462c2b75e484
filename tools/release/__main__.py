"""Pack bundles in the model zoo format: `python -m tools.release [BUNDLE]` writes `dist/NAME_vVERSION.zip`."""

from tumour.errors import command_line

from tools.release.pack import release

command_line(release, "tools.release")
