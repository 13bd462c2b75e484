"""Show the prediction for one patient in TensorBoard after every validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter
from tumour.pictures.drawing import outlined
from tumour.pictures.volumes import Volumes, to_bytes
from tumour.processes import rank

KINDS = {"pred": "prediction", "label": "reference"}  # key in the engine, name in the pictures


class Snapshot:
    """Handler of the validation that draws the first patient at the slice with most tumour, as in the report.

    Args:
        folder: TensorBoard's log folder.
        modalities: names of the channels of the image; the last one is drawn.
        regions: names of the channels of the label and the prediction.
    """

    def __init__(self, folder: str, modalities: Sequence[str], regions: Sequence[str]) -> None:
        self.folder, self.modalities, self.regions = folder, list(modalities), list(regions)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.show)

    def show(self, engine: Any) -> None:
        if engine.state.iteration != 1 or rank():
            return
        item = {key: np.asarray(engine.state.output[0][key].float().cpu()) for key in ("image", *KINDS)}
        masks = {kind: dict(zip(self.regions, item[key] > 0, strict=True)) for key, kind in KINDS.items()}
        masks = {kind: dict(sorted(m.items(), key=lambda region: -region[1].sum())) for kind, m in masks.items()}
        image = item["image"][-1]
        volumes = Volumes("first patient", {self.modalities[-1]: to_bytes(image - image.min() * (image != 0))}, masks)
        drawn = outlined(volumes, self.modalities[-1], "axial", volumes.centre()[2], pixel=1 / 3, kinds=masks)
        with SummaryWriter(self.folder) as board:
            board.add_image("first validation patient", np.asarray(drawn), engine.state.epoch, dataformats="HWC")
