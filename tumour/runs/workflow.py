"""The workflow of MONAI that runs a bundle."""

import logging
from typing import Any

from monai.bundle import ConfigWorkflow
from tumour.runs.options import check_options


def matters(record: logging.LogRecord) -> bool:
    """Whether a user can act on a message of MONAI."""
    return "Not all config files" not in record.msg


class CheckedWorkflow(ConfigWorkflow):
    """MONAI's workflow of config files, which checks the command line before it merges the files.

    The args.yaml of a bundle names it as `workflow_name`, and the files of which MONAI warns that they may be missing.
    """

    def __init__(self, **options: Any) -> None:
        check_options()
        logging.getLogger(ConfigWorkflow.__module__).addFilter(matters)
        super().__init__(**options)
