"""The workflow of MONAI that runs a bundle."""

from typing import Any

from monai.bundle import ConfigWorkflow
from tumour.runs.options import check_options


class CheckedWorkflow(ConfigWorkflow):
    """MONAI's workflow of config files, which checks the command line before it merges the files.

    The args.yaml of a bundle names it as `workflow_name`.
    """

    def __init__(self, **options: Any) -> None:
        check_options()
        super().__init__(**options)
