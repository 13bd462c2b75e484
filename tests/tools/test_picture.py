"""The picture of README.md shows a synthetic patient with the predicted tumour, and is small."""

import shutil

import numpy as np
import pytest
from PIL import Image
from tumour.errors import InputError
from tumour.pictures.drawing import COLOURS, rgb

from tests.conftest import ROOT
from tools import picture


def test_the_readme_shows_a_wide_picture_of_less_than_half_a_megabyte():
    path = ROOT / "docs" / "picture.webp"
    assert "](docs/picture.webp)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert path.stat().st_size < 500_000 and Image.open(path).size == (picture.WIDTH, picture.HEIGHT)


def test_the_four_scans_are_drawn_with_the_outlines_of_the_prediction(patients, tmp_path):
    case = "BraTS2021_00004"
    shutil.copy(patients("brats2021") / case / f"{case}_seg.nii.gz", tmp_path / f"{case}.nii.gz")
    drawn = np.asarray(picture.tiles(str(patients("brats2021")), tmp_path, case))
    rows, columns = (edge // 2 for edge in drawn.shape[:2])
    for tile in (drawn[:rows, :columns], drawn[:rows, columns:], drawn[rows:, :columns], drawn[rows:, columns:]):
        assert all((tile == rgb(COLOURS[region])).all(axis=-1).any() for region in ("WT", "ET"))
    with pytest.raises(InputError, match="has no case absent; it has BraTS2021_00000"):
        picture.tiles(str(patients("brats2021")), tmp_path, "absent")
