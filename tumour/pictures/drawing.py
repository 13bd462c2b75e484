"""Pictures of a case: slices in radiological orientation with outlines or errors, a sheet and an animation."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion
from tumour.files import atomic_write
from tumour.pictures.volumes import Mask, Volumes
from tumour.scans.grid import bounding_box

# Okabe & Ito (2008): these colours can be distinguished with every form of colour blindness
COLOURS = {"WT": "#56B4E9", "TC": "#F0E442", "ET": "#D55E00"}
NAMES = {"WT": "whole tumour (WT)", "TC": "tumour core (TC)", "ET": "enhancing tumour (ET)"}
SPARE = ["#E69F00", "#0072B2"]  # for all other regions
ERRORS = {"missed": "#009E73", "invented": "#CC79A7"}
CHANGED = {"gone": ERRORS["missed"], "new": ERRORS["invented"]}  # since the time point before
UNCERTAIN = "#E69F00"
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis perpendicular to each plane
MARKS = {"sagittal": "APSI", "coronal": "RLSI", "axial": "RLAP"}  # at the left, right, top and bottom
FRAMES = 50  # of an animation, at most
LEGEND = "Solid line: prediction. Dotted line: reference. The patient's right (R) is on the left, as in radiology."


def colours_of(regions: Iterable[str]) -> dict[str, str]:
    """The colour of each region, the same in all pictures."""
    names = list(regions)
    others = sorted(set(names) - COLOURS.keys())
    return {name: COLOURS.get(name) or SPARE[others.index(name) % len(SPARE)] for name in names}


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour such as #56B4E9."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def cut(volume: NDArray, plane: str, index: int) -> NDArray:
    """One slice (rows, columns) of (x, y, z) in RAS order, with right or front on the left and front or head on top."""
    return np.moveaxis(volume, PLANES[plane], 0)[index][::-1, ::-1].T


def grid_of(volumes: Volumes, plane: str, pixel: float) -> tuple[int, int]:
    """Rows and columns of a slice drawn with square pixels of `pixel` mm."""
    across, up = (axis for axis in range(3) if axis != PLANES[plane])
    rows, columns = (round(volumes.shape[axis] * volumes.spacing[axis] / pixel) for axis in (up, across))
    return rows, columns


def enlarge(image: NDArray, grid: tuple[int, int]) -> NDArray:
    """A slice on a finer grid: each pixel takes the value of the voxel that contains its centre.

    Pillow's nearest neighbour rounds differently at some sizes, so outlines would leave their voxels.
    """
    rows, columns = (((np.arange(n) + 0.5) / n * edge).astype(int) for n, edge in zip(grid, image.shape, strict=True))
    return image[rows][:, columns]


def outlines(masks: Mapping[str, Mask], plane: str, index: int, grid: tuple[int, int], dotted: bool) -> NDArray:
    """The outline of each region as RGBA (rows, columns, 4), the largest region first.

    The line is within the outermost voxels of the region, one to several pixels wide; `skimage.segmentation` draws
    boundaries of one or two pixels only.
    """
    layer = np.zeros((*grid, 4), np.uint8)
    for region, colour in colours_of(masks).items():
        mask = cut(masks[region], plane, index)
        if not mask.any():
            continue
        width = max(max(grid) // max(mask.shape) - 1, 1)  # pixels
        mask = enlarge(mask, grid)
        box = bounding_box(mask)  # a tumour is a small part of a slice
        rows, columns = np.ogrid[box]
        drawn = (rows + columns) // width % 4 < 2 if dotted else True
        layer[box][mask[box] & ~binary_erosion(mask[box], iterations=width) & drawn] = (*rgb(colour), 255)
    return layer


def errors(reference: Mask, prediction: Mask, plane: str, index: int, grid: tuple[int, int]) -> NDArray:
    """Missed and invented voxels of a region (x, y, z) in a slice, as RGBA (rows, columns, 4), half transparent."""
    reference, prediction = (cut(mask, plane, index) for mask in (reference, prediction))
    layer = np.zeros((*grid, 4), np.uint8)
    for name, wrong in (("missed", reference & ~prediction), ("invented", prediction & ~reference)):
        if wrong.any():
            layer[enlarge(wrong, grid)] = (*rgb(ERRORS[name]), 200)
    return layer


def doubts(volumes: Volumes, index: int) -> NDArray:
    """The uncertainty in an axial slice as RGBA (rows, columns, 4): the more of it, the less transparent."""
    assert volumes.uncertainty is not None
    opacity = cut(volumes.uncertainty, "axial", index)
    return np.dstack([np.broadcast_to(np.array(rgb(UNCERTAIN), np.uint8), (*opacity.shape, 3)), opacity])


def background(volumes: Volumes) -> str:
    """The modality of a single picture: FLAIR, which shows the whole tumour, or else the last one."""
    return "FLAIR" if "FLAIR" in volumes.images else list(volumes.images)[-1]


def picture(
    volumes: Volumes, modality: str, plane: str, index: int, layers: Iterable[NDArray], pixel: float
) -> Image.Image:
    """A slice in grey with layers of `outlines` or `errors` on top, and letters for the sides of the patient."""
    rows, columns = grid_of(volumes, plane, pixel)
    grey = Image.fromarray(np.ascontiguousarray(cut(volumes.images[modality], plane, index)))
    drawn = grey.resize((columns, rows), Image.Resampling.BICUBIC).convert("RGBA")
    for layer in layers:
        drawn.alpha_composite(Image.fromarray(layer))
    drawn = drawn.convert("RGB")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(max(rows // 16, 10))
    places = [
        (2, rows // 2, "lm"),
        (columns - 2, rows // 2, "rm"),
        (columns // 2, 1, "mt"),
        (columns // 2, rows - 2, "mb"),
    ]
    for mark, (x, y, anchor) in zip(MARKS[plane], places, strict=True):
        pen.text((x, y), mark, "white", font, anchor, stroke_width=1, stroke_fill="black")
    return drawn


def outlined(
    volumes: Volumes, modality: str, plane: str, index: int, pixel: float, kinds: Iterable[str]
) -> Image.Image:
    """A slice with the outlines of the prediction, the reference or both."""
    grid = grid_of(volumes, plane, pixel)
    layers = [outlines(volumes.masks[k], plane, index, grid, k == "reference") for k in kinds if k in volumes.masks]
    return picture(volumes, modality, plane, index, layers, pixel)


def planes(volumes: Volumes, pixel: float) -> dict[str, Image.Image]:
    """Three planes through the middle of the tumour and, if there are two label maps, the errors in the axial plane."""
    modality, kinds = background(volumes), ("prediction", "reference")
    centre = volumes.centre()
    drawn = {
        f"{plane}, {modality}": outlined(volumes, modality, plane, centre[axis], pixel, kinds)
        for plane, axis in reversed(PLANES.items())
    }
    if len(volumes.masks) == 2:
        region, reference = next(iter(volumes.masks["reference"].items()))
        grid = grid_of(volumes, "axial", pixel)
        wrong = errors(reference, volumes.masks["prediction"][region], "axial", centre[2], grid)
        drawn[f"errors in {region}"] = picture(volumes, modality, "axial", centre[2], [wrong], pixel)
    return drawn


def change_map(volumes: Volumes) -> Image.Image:
    """What is gone and new since the time point before: one row per region, with three planes through the change."""
    pixel, modality = float(min(volumes.spacing)) / 2, background(volumes)
    rows = {}
    for region, before in volumes.before.items():
        now, drawn = volumes.masks["prediction"][region], []
        changed = before ^ now
        for plane, axis in reversed(PLANES.items()):
            others = tuple(other for other in range(3) if other != axis)
            index = int(changed.sum(axis=others).argmax()) if changed.any() else volumes.centre()[axis]
            layer = errors(before, now, plane, index, grid_of(volumes, plane, pixel))
            drawn.append(picture(volumes, modality, plane, index, [layer], pixel))
        rows[region] = drawn
    tallest = max(image.height for drawn in rows.values() for image in drawn) + 16
    page = Image.new("RGB", (max(sum(image.width for image in drawn) for drawn in rows.values()), len(rows) * tallest))
    for number, (region, drawn) in enumerate(rows.items()):
        left, top = 0, number * tallest
        ImageDraw.Draw(page).text((4, top + 2), NAMES.get(region, region), "white", ImageFont.load_default(12))
        for image in drawn:
            page.paste(image, (left, top + 16))
            left += image.width
    return page


def write_image(image: Image.Image, path: Path, **options: Any) -> None:
    """Write a picture; an interrupted write leaves the old file."""
    with atomic_write(path) as scratch:
        image.save(scratch, **options)


def sheet(volumes: Volumes) -> Image.Image:
    """A picture for papers: all modalities at the slice with most tumour, three planes, the errors, a legend."""
    pixel = float(min(volumes.spacing)) / 3
    index, kinds = volumes.centre()[2], ("prediction", "reference")
    modalities = {f"axial, {m}": outlined(volumes, m, "axial", index, pixel, kinds) for m in volumes.images}
    rows = [modalities, planes(volumes, pixel)]
    width = max(sum(image.width for image in row.values()) + 8 * (len(row) - 1) for row in rows)
    line = max(width // 64, 14)
    font, small = ImageFont.load_default(line), ImageFont.load_default(line * 4 // 5)
    heights = [max(image.height for image in row.values()) + 2 * line for row in rows]
    page = Image.new("RGB", (width, sum(heights) + 7 * line), "black")
    pen = ImageDraw.Draw(page)
    pen.text((4, 4), volumes.case, "white", font)
    top = 2 * line
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for title, image in row.items():
            pen.text((left + 4, top), title, "white", small)
            page.paste(image, (left, top + 3 * line // 2))
            left += image.width + 8
        top += height
    draw_legend(pen, volumes, top, line, small)
    return page


def draw_legend(pen: ImageDraw.ImageDraw, volumes: Volumes, top: int, line: int, font: Any) -> None:
    """The colours of the regions and, if there are two label maps, of the errors; then the kinds of lines."""
    regions = colours_of(next(iter(volumes.masks.values()), {}))
    named = {NAMES.get(region, region): colour for region, colour in regions.items()}
    for entries in (named, ERRORS if len(volumes.masks) == 2 else {}):
        left = 4
        for name, colour in entries.items():
            pen.rectangle((left, top, left + line, top + line), colour)
            pen.text((left + 3 * line // 2, top), name, "white", font)
            left += round(font.getlength(name)) + 3 * line
        top += 3 * line // 2
    pen.text((4, top), LEGEND, "white", font)


def sweep(volumes: Volumes, path: Path) -> None:
    """Write an animated GIF from foot to head, with the reference on the left and the prediction on the right."""
    pixel, modality = float(min(volumes.spacing)) / 1.5, background(volumes)
    kinds = list(volumes.masks) or ["scan"]
    drawn = []
    for index in np.unique(np.linspace(0, volumes.shape[2] - 1, FRAMES).astype(int)):
        slices = [outlined(volumes, modality, "axial", index, pixel, [kind]) for kind in kinds]
        frame = Image.new("RGB", (sum(image.width for image in slices), slices[0].height + 16))
        pen = ImageDraw.Draw(frame)
        for number, (kind, image) in enumerate(zip(kinds, slices, strict=True)):
            frame.paste(image, (number * image.width, 16))
            pen.text((number * image.width + 4, 2), kind, "white", ImageFont.load_default(12))
        drawn.append(frame)
    palette = drawn[len(drawn) // 2].quantize(64)
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in drawn]
    write_image(flat[0], path, save_all=True, append_images=flat[1:], duration=80, loop=0)
