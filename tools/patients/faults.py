"""Create a defect in the files of a case, so that every check can be tried (data sets with one file per modality)."""

import gzip
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tumour.errors import one_of

Files = Mapping[str, Path]  # the files of a case by modality, and `label`
Fault = Callable[[Files], object]


def plant(kind: str, files: Files) -> None:
    """Create the defect called `kind`, one of `KINDS`, in a case."""
    one_of(KINDS, kind, setting="corrupt")(files)


def altered(raw: bytes) -> bytes:
    """Change one voxel but keep the old checksum: nibabel reads such a file without an error."""
    values = bytearray(gzip.decompress(raw))
    values[len(values) // 2] ^= 1
    return gzip.compress(bytes(values))[:-8] + raw[-8:]


def without_third_axis(raw: bytes) -> bytes:
    """Set the third row of the affine to zero."""
    values = gzip.decompress(raw)
    return gzip.compress(values[:312] + bytes(16) + values[328:])


def in_bytes(change: Callable[[bytes], bytes], name: str = "T1ce") -> Fault:
    """Change the bytes of one file of a case."""
    return lambda files: files[name].write_bytes(change(files[name].read_bytes()))


def in_voxels(
    change: Callable[[NDArray], NDArray], name: str = "T1ce", affine: Callable[[NDArray], NDArray] = np.array
) -> Fault:
    """Change the values, and if given the affine, of one file of a case."""

    def alter(files: Files) -> None:
        image = nib.load(files[name])
        data = change(np.array(image.dataobj))
        nib.save(nib.Nifti1Image(data, affine(image.affine)), files[name])  # type: ignore[attr-defined]

    return alter


def moved(mm: float) -> Callable[[NDArray], NDArray]:
    """Shift the affine along the first axis."""
    return lambda affine: affine + np.array([[0, 0, 0, mm]] + [[0] * 4] * 3)


def scaled(*factors: float) -> Callable[[NDArray], NDArray]:
    """Multiply the voxel sizes in the affine; a negative factor flips an axis."""
    return lambda affine: affine @ np.diag([*factors, 1])


def set_one(value: float, kind: type = np.float32) -> Callable[[NDArray], NDArray]:
    """Set the voxel in the middle."""

    def change(data: NDArray) -> NDArray:
        data = data.astype(kind)
        data[tuple(edge // 2 for edge in data.shape)] = value
        return data

    return change


def cut_top(data: NDArray) -> NDArray:
    """Remove the upper third of the brain."""
    inside = np.flatnonzero(data.any(axis=(0, 1)))
    data[..., inside[len(inside) * 2 // 3] :] = 0
    return data


def to_corner(data: NDArray) -> NDArray:
    """Move the brain by half of the volume, across its borders."""
    return np.roll(data, [edge // 2 for edge in data.shape], axis=(0, 1, 2))


def outside_brain(data: NDArray) -> NDArray:
    """Label voxels at a border of the volume: 5% of the number of tumour voxels."""
    flat = data.reshape(-1)
    flat[: np.count_nonzero(flat) // 20 + 1] = 1
    return flat.reshape(data.shape)


def no_codes(files: Files) -> None:
    """Remove the sform and qform codes, so that left and right are unknown."""
    for path in files.values():
        nib.save(nib.Nifti1Image(np.array(nib.load(path).dataobj), None), path)  # type: ignore[attr-defined]


def overflowing(files: Files) -> None:
    """Give a file a scl_slope with which its values are finite in float64 and infinite in float32."""
    raw = bytearray(gzip.decompress(files["T1ce"].read_bytes()))
    raw[112:120] = np.array([1e38, 0], "<f4").tobytes()
    files["T1ce"].write_bytes(gzip.compress(bytes(raw)))


def other_pixdim(files: Files) -> None:
    """Give the first scan a pixdim of 2 mm and leave its affine as it is."""
    raw = bytearray(gzip.decompress(files["T1"].read_bytes()))
    raw[80:92] = np.full(3, 2, "<f4").tobytes()
    files["T1"].write_bytes(gzip.compress(bytes(raw)))


def with_a_skull(data: NDArray) -> NDArray:
    """Fill the background with noise."""
    return np.where(data == 0, np.random.default_rng(0).integers(1, 50, data.shape), data).astype(data.dtype)


def z_scored(data: NDArray) -> NDArray:
    """Normalise all voxels, the background with them."""
    return ((data - data.mean()) / data.std()).astype(np.float32)


def without_ending(files: Files) -> None:
    """Rename a compressed file to .nii."""
    files["T1ce"].rename(files["T1ce"].with_suffix(""))


def twin(files: Files) -> None:
    """Copy one file into a subfolder of the case."""
    folder = files["T1ce"].parent / "copy"
    folder.mkdir()
    shutil.copy(files["T1ce"], folder)


def same_bytes(files: Files) -> None:
    """Copy all files as those of another patient."""
    case = files["T1ce"].parent.name
    for path in files.values():
        target = path.parent.with_name(f"{case[:-1]}X") / path.name.replace(case, f"{case[:-1]}X")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)


KINDS: dict[str, Fault] = {
    "absent": lambda files: files["T1ce"].unlink(),
    "empty": in_bytes(lambda raw: b""),
    "half": in_bytes(lambda raw: raw[: len(raw) // 2]),
    "flipped_byte": in_bytes(altered),
    "web_page": in_bytes(lambda raw: b"<!DOCTYPE html><html>Please log in</html>"),
    "lfs_pointer": in_bytes(lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "annex_pointer": in_bytes(lambda raw: b"/annex/objects/MD5E-s1--0.nii.gz\n"),
    "zeros": in_bytes(lambda raw: bytes(len(raw))),
    "text": in_bytes(lambda raw: b"no such file"),
    "not_compressed": in_bytes(gzip.decompress),
    "compressed": without_ending,
    "few_voxels": in_bytes(lambda raw: gzip.compress(gzip.decompress(raw)[:-1000])),
    "nan": in_voxels(set_one(np.nan)),
    "infinite": in_voxels(set_one(np.inf)),
    "constant": in_voxels(np.zeros_like),
    "negative": in_voxels(np.negative),
    "four_axes": in_voxels(lambda data: np.stack([data, data], axis=-1)),
    "one_slice": in_voxels(lambda data: data[..., :1]),
    "complex": in_voxels(lambda data: data.astype(np.complex64)),
    "wrong_modality": lambda files: shutil.copy(files["T1"], files["T1ce"]),
    "shape": in_voxels(lambda data: data[:-2]),
    "orientation": in_voxels(np.array, affine=scaled(-1, 1, 1)),
    "spacing": in_voxels(np.array, affine=scaled(1, 1, 2)),
    "moved": in_voxels(np.array, affine=moved(5)),
    "singular": in_bytes(without_third_axis),
    "elsewhere": in_voxels(to_corner),
    "cut_field": in_voxels(cut_top),
    "skull": in_voxels(with_a_skull),
    "background": in_voxels(z_scored),
    "overflow": overflowing,
    "outlier": in_voxels(set_one(3e10)),
    "pixdim": other_pixdim,
    "no_codes": no_codes,
    "label_value": in_voxels(set_one(9, np.uint8), "label"),
    "label_fraction": in_voxels(set_one(0.5), "label"),
    "label_shape": in_voxels(lambda data: data[:-2], "label"),
    "label_moved": in_voxels(np.array, "label", affine=moved(5)),
    "label_affine": in_voxels(np.array, "label", affine=lambda affine: np.eye(4)),
    "label_elsewhere": in_voxels(to_corner, "label"),
    "label_outside": in_voxels(outside_brain, "label"),
    "label_empty": in_voxels(np.zeros_like, "label"),
    "label_four_axes": in_voxels(lambda data: np.stack([data, data], axis=-1), "label"),
    "label_half": in_bytes(lambda raw: raw[: len(raw) // 2], "label"),
    "twin": twin,
    "duplicate": same_bytes,
}
