"""Measure the way from the scanner and back on heads in random poses, written as oblique DICOM series.

python -m benchmarks.scanner --data ../shared/data/BraTS2018 --cohort brats2018 --poses 30

A head is the mean head of pydeface with the brain of a BraTS patient in it, so its pose on the atlas grid is known.
Every pose turns it by up to 30 degrees, shifts it by up to 40 mm, and samples each modality on another anisotropic grid
with noise. Needs `make setup EXTRA=scanner`. `--brains 1` also strips the skull of this number of poses with HD-BET,
which takes most of the time.

`--pairs 3` instead measures two time points of a patient: the T1ce of a head that is warped, so that it is not the head
of the atlas, in two poses, with a darker tumour in the second one. It prints how far apart landmarks of the two
prepared scans are, if each scan is registered to the atlas and if the second one is registered to the first.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import itk
import nibabel as nib
import numpy as np
import yaml
from scipy import ndimage
from scipy.spatial.transform import Rotation
from tumour.cases.case import Case
from tumour.cases.find import find_cases
from tumour.cohort import Cohort
from tumour.scanner.back import on_scan
from tumour.scanner.prepare import atlas_head, brats_grid, register_all
from tumour.scanner.register import LPS, Matrix, moved, on_grid
from tumour.scanner.strip import brain_of
from tumour.scanner.study import choose, series_of
from tumour.scans.grid import Scan
from tumour.scans.readers import read_classes, read_scan

from tools.bundles import COMMON
from tools.cohorts import cohort_named, modalities

GRIDS = {  # voxels and their mm, by modality
    "T1": ((208, 208, 44), (1.1, 1.1, 5.0)),
    "T1ce": ((160, 192, 192), (1.2, 1.2, 1.2)),
    "T2": ((208, 208, 44), (1.1, 1.1, 5.0)),
    "FLAIR": ((192, 192, 64), (1.2, 1.2, 3.3)),
}
TAGS = {"T1": "t1_tse_tra", "T1ce": "t1_mprage_sag post", "T2": "t2_tse_tra", "FLAIR": "t2_tirm_tra_dark-fluid"}


def whole_heads(images: Mapping[str, Scan], atlas: Scan) -> dict[str, Scan]:
    """The brains of a patient within the skull of the atlas head, as bright as the brain of that head is."""
    brain = ndimage.binary_fill_holes(images["T1ce"].data > 0)
    heads = {}
    for name, image in images.items():
        scale = np.median(atlas.data[brain]) / np.median(image.data[brain])
        heads[name] = replace(atlas, data=np.where(brain, image.data * scale, atlas.data).astype(np.float32))
    return heads


def random_pose(random: np.random.Generator, centre: np.ndarray) -> Matrix:
    """A rotation by up to 30 degrees about a point, then a shift by up to 40 mm."""
    axis, way = (vector / np.linalg.norm(vector) for vector in random.normal(size=(2, 3)))
    turn = Rotation.from_rotvec(axis * np.radians(random.uniform(0, 30))).as_matrix()
    return nib.affines.from_matvec(turn, centre - turn @ centre + way * random.uniform(0, 40))


def sampled(head: Scan, name: str, random: np.random.Generator, centre: np.ndarray) -> Scan:
    """A head on the grid of a sequence, turned by a few degrees and roughly centred on it, with noise."""
    shape, spacing = GRIDS[name]
    turn = Rotation.from_euler("xyz", random.uniform(-5, 5, 3), degrees=True).as_matrix()
    matrix = turn @ np.diag(spacing) * [-1, -1, 1]
    place = centre + random.uniform(-10, 10, 3)
    grid = Scan(name, np.zeros(shape, np.uint8), nib.affines.from_matvec(matrix, place - matrix @ np.array(shape) / 2))
    noise = random.normal(0, 0.02 * float(np.percentile(head.data, 99)), shape)
    return replace(grid, data=np.maximum(on_grid(head, grid) + noise, 0))


def write_series(scan: Scan, name: str, number: int, folder: Path) -> None:
    """Write a scan as a DICOM series with a description."""
    lps, spacing = LPS @ scan.affine, scan.spacing
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(scan.shape[2]):
        part = itk.image_from_array(np.ascontiguousarray(scan.data[..., k : k + 1].T).astype(np.int16))
        part.SetSpacing([float(mm) for mm in spacing])
        part.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
        part.SetOrigin([float(mm) for mm in nib.affines.apply_affine(lps, [0, 0, k])])
        tags = {"0020|000d": "1.2.3", "0020|000e": f"1.2.3.{number}", "0020|0011": str(number), "0008|0060": "MR"}
        for tag, value in (tags | {"0020|0013": str(k + 1), "0008|103e": TAGS[name], "0010|0020": "P"}).items():
            part.GetMetaDataDictionary()[tag] = value
        writer = itk.GDCMImageIO.New()
        writer.KeepOriginalUIDOn()
        itk.imwrite(part, str(folder / f"{number}-{k:03}.dcm"), imageio=writer)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / max(int(one.sum() + other.sum()), 1)


def warped(head: Scan, random: np.random.Generator) -> Scan:
    """The head of another person: a smooth random warp by 4 mm (standard deviation) along each axis."""
    coarse = random.normal(0, 4, (3, 5, 5, 5))  # the grid of BraTS has voxels of 1 mm
    field = [ndimage.zoom(each, np.divide(head.shape, each.shape), order=3) for each in coarse]
    return replace(head, data=ndimage.map_coordinates(head.data, np.indices(head.shape) + field, order=1))


def measure_pairs(cases: Sequence[Case], cohort: Cohort, atlas: Scan) -> None:
    """Print how far apart two time points of a patient are prepared."""
    print_line = "{:>4} {:<24} {:>20} {:>20}".format
    print(print_line("pair", "median, worst (mm)", "each to the atlas", "to the first"))
    for number, case in enumerate(cases):
        random, image = np.random.default_rng(number), read_scan(case.files["T1ce"])
        brain, tumour = ndimage.binary_fill_holes(image.data > 0), read_classes(str(case.label), cohort).data > 0
        later = replace(image, data=np.where(tumour, 0.7 * image.data, image.data))
        landmarks = nib.affines.apply_affine(atlas.affine, random.choice(np.argwhere(brain), 200))
        centre, scans, truth = landmarks.mean(axis=0), [], []
        for each in (image, later):
            head = warped(whole_heads({"T1ce": each}, atlas)["T1ce"], np.random.default_rng(number))
            pose = random_pose(random, centre)
            scans.append(sampled(moved(head, pose), "T1ce", random, nib.affines.apply_affine(pose, centre)))
            truth.append(nib.affines.apply_affine(pose, landmarks))
        first, second = (register_all({"T1ce": scan}, atlas, mirror=False)["T1ce"] for scan in scans)
        together = register_all({"T1ce": scans[1]}, moved(scans[0], first), mirror=True)["T1ce"]
        there = nib.affines.apply_affine(first, truth[0])
        off = [np.linalg.norm(nib.affines.apply_affine(m, truth[1]) - there, axis=1) for m in (second, together)]
        print(print_line(number, case.name, *(f"{np.median(each):.2f}, {each.max():.2f}" for each in off)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--cohort", default="brats2021")
    parser.add_argument("--poses", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="number of the first pose")
    parser.add_argument("--brains", type=int, default=0, help="poses whose skull is stripped")
    parser.add_argument("--pairs", type=int, default=0, help="pairs of time points to measure instead")
    given = parser.parse_args()
    config = yaml.safe_load((COMMON / "prepare.yaml").read_text())
    names = yaml.safe_load((COMMON / "cohorts.yaml").read_text())["series"]
    atlas, cohort = atlas_head(brats_grid(config["grid"]), config["atlas_head"]), cohort_named(given.cohort)
    cases = find_cases(given.data, cohort, modalities()).complete
    if given.pairs:
        measure_pairs([cases[number % len(cases)] for number in range(given.pairs)], cohort, atlas)
        return
    errors, print_line = [], "{:>4} {:<24} {:>8} {:>8} {:>10} {:>10} {:>8}".format
    print(print_line("pose", "patient", "median", "worst", "there+back", "brain", "seconds"))
    for number in range(given.first, given.first + given.poses):
        random, case = np.random.default_rng(number), cases[number % len(cases)]
        images = {name: read_scan(path) for name, path in zip(case.modalities, case.images, strict=True)}
        label, heads = read_classes(str(case.label), cohort), whole_heads(images, atlas)
        brain = ndimage.binary_fill_holes(images["T1ce"].data > 0)
        inside = np.argwhere(brain)
        landmarks = nib.affines.apply_affine(atlas.affine, random.choice(inside, 200))
        centre = landmarks.mean(axis=0)
        pose = random_pose(random, centre)
        with TemporaryDirectory() as scratch:
            for place, (name, head) in enumerate(heads.items()):
                scan = sampled(moved(head, pose), name, random, nib.affines.apply_affine(pose, centre))
                write_series(scan, name, place + 1, Path(scratch))
            began = time.monotonic()
            chosen = choose(series_of(Path(scratch), cohort, names), cohort.modalities)
            scans = {name: series.read() for name, series in chosen.items()}
            motions = register_all(scans, atlas, mirror=False)
            seconds = time.monotonic() - began
        truth = nib.affines.apply_affine(pose, landmarks)
        off = [np.linalg.norm(nib.affines.apply_affine(m, truth) - landmarks, axis=1) for m in motions.values()]
        native = moved(scans["T1ce"], motions["T1ce"])
        there = replace(native, data=on_scan(label, native, len(cohort.classes)))
        again = on_scan(there, atlas, len(cohort.classes))
        stripped = ""
        if number < given.first + given.brains:
            head = replace(atlas, data=on_grid(native, atlas))
            stripped = f"{dice(brain_of(head, 'cpu'), brain):.3f}"
        errors.append(np.array(off))
        worst, both = errors[-1].max(), dice(again > 0, label.data > 0)
        row = f"{np.median(off):.2f}", f"{worst:.2f}", f"{both:.3f}", stripped, f"{seconds:.0f}"
        print(print_line(number, case.name, *row), flush=True)
    everything = np.concatenate([each.ravel() for each in errors])
    print(f"landmarks, mm: median {np.median(everything):.2f}, worst {everything.max():.2f}; {len(errors)} poses.")


if __name__ == "__main__":
    main()
