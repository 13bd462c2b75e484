"""Read one DICOM series: its slices or frames in the order of their positions, on an even grid or not at all."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import itk
import numpy as np
from numpy.typing import NDArray
from tumour.errors import InputError
from tumour.scans.nifti import MOST

SAME_PLACE = 0.01  # mm
UNEVEN = 0.1  # of the distance between slices, but never less than SAME_PLACE
SHIFTED = 0.5  # of a pixel
CONVERT = "convert it with dcm2niix and use the NIfTI files"
DIFFERS = {  # what tells the scans of a series apart
    "0018|0081": "EchoTime",
    "0018|0086": "EchoNumbers",
    "0018|0082": "InversionTime",
    "0018|9087": "DiffusionBValue",
    "0020|0100": "TemporalPositionIdentifier",
    "0020|0012": "AcquisitionNumber",
    "0008|0032": "AcquisitionTime",
    "0008|0008": "ImageType",
}
NEEDED = {"0020|0032": "ImagePositionPatient", "0020|0037": "ImageOrientationPatient", "0028|0030": "PixelSpacing"}
PIXELS, ROWS = b"\xe0\x7f\x10\0", b"\x28\0\x10\0"  # tags of elements
INDEX = b"1.2.840.10008.1.3.10"  # the class of a DICOMDIR
FRAME = {
    "position": (0x20, 0x32),
    "orientation": (0x20, 0x37),
    "spacing": (0x28, 0x30),
    "RescaleSlope": (0x28, 0x1053),
    "RescaleIntercept": (0x28, 0x1052),
}


@dataclass(frozen=True)
class _Slice:
    """A slice of a series.

    Args:
        path: its file.
        pixels: (y, x).
        position: of the first pixel, (3,), mm.
        directions: of the axes, as columns.
        spacing: mm per pixel.
        tags: of its file.
        placed: whether the file states a place for each of several frames.
    """

    path: str
    pixels: NDArray[Any]
    position: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing: NDArray[np.float64]
    tags: Mapping[str, Any]
    placed: bool = False

    def tag(self, name: str) -> str:
        return str(self.tags.get(name, "")).strip()


def read_series(folder: str) -> tuple[NDArray[Any], NDArray[np.float64], str]:
    """Read the only DICOM series in a folder.

    Returns:
        The voxels (x, y, z), the affine (4, 4) to RAS coordinates in mm, and the patient id.

    Raises:
        InputError: the folder has no series or several, its slices are not on an even grid, or it cannot be read.
    """
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.SetDirectory(folder)
    series = names.GetSeriesUIDs()
    read = {Path(path).name for each in series for path in names.GetFileNames(each)}
    others = [path for path in sorted(Path(folder).iterdir()) if path.name not in read]
    if unread := next(filter(_is_image, others), None):
        raise InputError(f"'{unread}' is an incomplete or damaged DICOM image; export the series again")
    if not series:
        raise InputError(f"'{folder}' is a folder without a DICOM series; name a file, or a folder with one series")
    if len(series) != 1:
        raise InputError(f"'{folder}' has {len(series)} DICOM series; keep only the one of this modality")
    return read_slices(names.GetFileNames(series[0]), folder)


def read_slices(paths: Sequence[str], name: str) -> tuple[NDArray[Any], NDArray[np.float64], str]:
    """Read the files of one series, as `read_series` does; `name` is that of the series, for messages."""
    try:
        stated = sum(map(_stated, paths))
        if stated > MOST:
            raise InputError(f"'{name}' states {stated:,} voxels, and a scan may have {MOST:,}; resample it")
        slices = [each for path in paths for each in _slices(path)]
    except InputError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"'{name}' is not a complete DICOM series ({kind}); export it again") from error
    normal = slices[0].directions[:, 2]
    slices.sort(key=lambda each: float(each.position @ normal))
    fault = _fault(slices)
    if fault:
        raise InputError(f"'{name}' {fault}")
    first, last = slices[0], slices[-1]
    step = normal if first is last else (last.position - first.position) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3] = np.column_stack([first.directions[:, :2] * first.spacing, step, first.position])
    return np.stack([each.pixels for each in slices]).T, np.diag([-1, -1, 1, 1]) @ affine, first.tag("0010|0020")


def _is_image(path: Path) -> bool:
    """Whether a file is a DICOM image, also a damaged one that ITK passes over; the index of a disk is none."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(2**20)
    return head[128:132] == b"DICM" and ROWS in head and INDEX not in head


def _stated(path: str) -> int:
    """The number of pixels in a file according to its header."""
    image = itk.GDCMImageIO.New()
    image.SetFileName(path)
    image.ReadImageInformation()
    return int(image.GetImageSizeInPixels())


def _slices(path: str) -> list[_Slice]:
    """The slices of a file, which has several if it is an enhanced one."""
    image = itk.imread(path, imageio=itk.GDCMImageIO.New())
    frames = itk.array_from_image(image)  # (frame, y, x)
    if not _holds(path, frames.size * int(dict(image).get("0028|0100", 16)) // 8):
        raise InputError(f"'{path}' has more or fewer pixels than it states; export the original series")
    if frames.ndim != 3:
        raise InputError(f"'{path}' holds colours, not one grey value per pixel; export the original series")
    if len(frames) > 1:
        positions, directions, spacing = _frame_places(path, len(frames))
    else:
        positions = [np.array(image.GetOrigin())]
        directions, spacing = np.asarray(image.GetDirection()), np.array(image.GetSpacing())[:2]
    about = directions, spacing, dict(image), len(frames) > 1
    return [_Slice(path, frame, position, *about) for frame, position in zip(frames, positions, strict=True)]


def _holds(path: str, size: int) -> bool:
    """Whether a file has this many bytes of pixels, where they are not compressed: ITK fills up what is missing."""
    raw, length = Path(path).read_bytes(), (size + size % 2).to_bytes(4, "little")
    compressed = PIXELS not in raw or any(PIXELS + kind + b"\xff" * 4 in raw for kind in (b"OB\0\0", b"OW\0\0"))
    places = [raw.find(PIXELS + kind + length) for kind in (b"OB\0\0", b"OW\0\0", b"")]
    return compressed or 0 <= max(places) <= len(raw) - size


def _frame_places(path: str, count: int) -> tuple[list[NDArray[np.float64]], NDArray[np.float64], NDArray[np.float64]]:
    """The position of each frame of a file, and the directions and spacing of all: ITK takes them to follow evenly.

    Raises:
        InputError: they are missing, or the frames differ in orientation, spacing or the scale of their values.
    """
    head = Path(path).read_bytes().partition(PIXELS)[0]  # what precedes the pixels
    values = {what: _values(head, tag) for what, tag in FRAME.items()}
    if len(values["position"]) != count or not values["orientation"] or not values["spacing"]:
        raise InputError(f"'{path}' has {count} frames, but not a position for each; {CONVERT}")
    for what in FRAME.keys() - {"position"}:
        if values[what] and np.ptp(values[what], axis=0).max() > 1e-3 * np.abs(values[what]).max():
            raise InputError(f"'{path}' has frames that differ in {what}; {CONVERT}")
    row, column = np.array(values["orientation"][0]).reshape(2, 3)
    directions = np.column_stack([row, column, np.cross(row, column)])
    return [np.array(value) for value in values["position"]], directions, np.array(values["spacing"][0][::-1])


def _values(head: bytes, tag: tuple[int, int]) -> list[tuple[float, ...]]:
    """All values of a decimal element in little-endian DICOM at any depth, in the order of the file."""
    key = re.escape(b"".join(number.to_bytes(2, "little") for number in tag))
    values = []
    for match in re.finditer(key + rb"(?:DS(..)|(..)\0\0)", head, re.DOTALL):
        text = head[match.end() : match.end() + int.from_bytes(match[1] or match[2], "little")]
        try:
            values.append(tuple(map(float, text.strip(b" \0").split(b"\\"))))
        except ValueError:
            continue  # other bytes that look like the element
    return values


def _fault(slices: Sequence[_Slice]) -> str | None:
    """Why slices in the order of their positions make no volume and how to fix it, or None."""
    first = slices[0]
    for each in slices:
        missing = next((name for tag, name in NEEDED.items() if not (each.placed or each.tag(tag))), None)
        if missing:
            where = f"does not say where its slices lie ('{Path(each.path).name}' has no {missing})"
            return f"{where}; export the original series"
        if each.tag("0028|0004") == "MONOCHROME1":
            return f"stores black as the highest value ('{Path(each.path).name}' is MONOCHROME1); {CONVERT}"
    if len({(each.pixels.shape, *each.spacing.round(3)) for each in slices}) > 1:
        return "contains slices of several sizes; keep one scan"
    turned = sum(not np.allclose(each.directions, first.directions, atol=1e-3) for each in slices)
    if turned:
        return f"contains slices of several orientations, like a localizer ({turned} unlike the first); keep one scan"
    places = np.array([each.position for each in slices])
    heights = (places - places[0]) @ first.directions[:, 2]
    steps = np.diff(heights)
    if (steps < SAME_PLACE).any():
        return _twice(slices, int(np.argmax(steps < SAME_PLACE)))
    if not len(steps):
        return None
    usual = float(np.median(steps))
    widest = int(np.argmax(steps))
    allowed = max(UNEVEN * usual, SAME_PLACE)
    if steps[widest] > 1.5 * usual:
        apart = f"{steps[widest]:.2f} mm apart, others {usual:.2f} mm"
        between = f"'{Path(slices[widest].path).name}' and '{Path(slices[widest + 1].path).name}' are {apart}"
        return f"has slices missing ({between}); export the whole series"
    even = np.linspace(0, heights[-1], len(heights))
    if max(np.abs(steps - usual).max(), np.abs(heights - even).max()) > allowed:
        return f"has slices unevenly spaced ({steps.min():.2f} to {steps.max():.2f} mm apart); export it evenly spaced"
    aside = float(np.linalg.norm(places - places[0] - np.outer(heights, first.directions[:, 2]), axis=1).max())
    if aside > SHIFTED * first.spacing.min():
        tilt = np.degrees(np.arctan2(aside, heights[-1]))
        return f"has slices shifted sideways by up to {aside:.1f} mm (gantry tilt {tilt:.1f}°); {CONVERT}"
    return None


def _twice(slices: Sequence[_Slice], index: int) -> str:
    """What is wrong with a series in which a slice lies where the next one does."""
    one, other = slices[index : index + 2]
    names = f"'{Path(one.path).name}' and '{Path(other.path).name}'"
    tag = next((tag for tag in DIFFERS if one.tag(tag) != other.tag(tag)), None)
    if tag:
        values = f"{DIFFERS[tag]} {one.tag(tag)} and {other.tag(tag)}".replace("\\", "/")
        return f"contains several scans in one series ({names} lie at one place, {values}); keep the files of one"
    if one.path == other.path:
        return f"has two frames at one place, as several echoes or time points do; {CONVERT}"
    return f"contains a slice twice ({names}); remove one"
