"""A damaged file is left out in one sentence or read as what it was; one that states too much costs no memory."""

import gzip
import os
import random
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tumour.errors import InputError
from tumour.scans import nifti
from tumour.scans.nifti import read_nifti
from tumour.scans.readers import read_scan

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, ROOT, run
from tools.patients.synthetic import make_patients
from tools.show import merged

BUNDLE, CASE = BUNDLES[0], "BraTS2021_00000"
Draw = random.Random
IMAGE = np.arange(12 * 10 * 9, dtype=np.int16).reshape(12, 10, 9)


def header(place: int, kind: str, *values: float) -> Callable[[bytes], bytes]:
    """Write values into a header, in little-endian order."""
    raw = np.array(values, f"<{kind}").tobytes()
    return lambda file: file[:place] + raw + file[place + len(raw) :]


def flipped(file: bytes, draw: Draw, low: int, high: int) -> bytes:
    """Change one bit between two bytes."""
    place = draw.randrange(low, min(high, len(file)))
    return file[:place] + bytes([file[place] ^ 1 << draw.randrange(8)]) + file[place + 1 :]


def saved(kind: type, dtype: str, axes: int = 3, order: str = "<") -> Callable[[bytes], bytes]:
    """The same scan in another form that NIfTI knows."""

    def change(file: bytes) -> bytes:
        image = nib.Nifti1Image.from_bytes(file)
        data = np.asarray(image.dataobj).reshape(image.shape + (1,) * (axes - 3)).astype(dtype)
        made = kind(data, image.affine, dtype=np.dtype(dtype))
        return (made if order == "<" else kind(data, image.affine, made.header.as_byteswapped(order))).to_bytes()

    return change


FORMS: list[Any] = [
    (nib.Nifti1Image, "i8"),
    (nib.Nifti1Image, "f8", 5),
    (nib.Nifti1Image, "f4", 4),
    (nib.Nifti2Image, "i2"),
    (nib.Nifti1Image, "u2", 3, ">"),
    (nib.Nifti2Image, "f4", 3, ">"),
]
INSIDE = {  # what is changed in the uncompressed file
    "any bit of the header": lambda file, draw: flipped(file, draw, 0, 348),
    "its dimensions": lambda file, draw: header(42, "i2", *(draw.choice([-1, 0, 1, 7, 31, 33, 2**14]) for _ in "xyz"))(
        file
    ),
    "number of dimensions": lambda file, draw: header(40, "i2", draw.choice([-3, 0, 1, 2, 4, 8, 3000]))(file),
    "one slice fewer": lambda file, draw: header(46, "i2", 31)(file),
    "datatype": lambda file, draw: header(70, "i2", draw.choice([0, 1, 2, 16, 32, 64, 128, 1536, 9999]))(file),
    "bitpix": lambda file, draw: header(72, "i2", draw.choice([8, 32, -16]))(file),
    "affine": lambda file, draw: header(280 + 4 * draw.randrange(12), "f4", draw.choice([np.nan, np.inf, 1e30, 5e3]))(
        file
    ),
    "no affine": lambda file, draw: header(280, "f4", *[0] * 12)(file),
    "slope": lambda file, draw: header(112, "f4", draw.choice([np.nan, np.inf, 1e38, 1e20, 1e-30, -1, 0]))(file),
    "intercept": lambda file, draw: header(112, "f4", 1, draw.choice([np.nan, np.inf, -np.inf, 1e38]))(file),
    "start of the voxels": lambda file, draw: header(108, "f4", draw.choice([np.nan, -1, 0, 348, 400, 1e30]))(file),
    "magic": lambda file, draw: header(344, "u1", *draw.choice([b"ni1\0", b"abcd", b"n+9\0"]))(file),
    "size of the header": lambda file, draw: header(0, "i4", draw.choice([0, 540, 349, -1]))(file),
    "end missing": lambda file, draw: file[: draw.randrange(1, len(file))],
    "more at the end": lambda file, draw: file + bytes(draw.choice([1, 16, 5000])),
    "a header alone": lambda file, draw: file[:348],
    "NaN": lambda file, draw: (
        saved(nib.Nifti1Image, "f4")(file)[:-4] + np.float32(draw.choice([np.nan, np.inf])).tobytes()
    ),
    "complex": lambda file, draw: saved(nib.Nifti1Image, draw.choice(["c8", "c16"]))(file),
    "compressed twice": lambda file, draw: gzip.compress(file),
    "another form": lambda file, draw: saved(*draw.choice(FORMS))(file),
}
OUTSIDE = {  # what is changed in the compressed file
    "any bit": lambda file, draw: flipped(file, draw, 4, len(file)),
    "its end missing": lambda file, draw: file[: draw.randrange(len(file))],
    "text": lambda file, draw: draw.choice([b"no such file\n", b"\xef\xbb\xbf404", b"<html>", b"\0" * 600, b""]),
    "noise": lambda file, draw: draw.randbytes(draw.choice([3, 400, 5000])),
    "noise at the end": lambda file, draw: file + draw.randbytes(99),
}


def damaged(number: int, file: bytes) -> tuple[str, bytes]:
    """One of all kinds of damage to a compressed file."""
    draw, kinds = random.Random(number), [*INSIDE, *OUTSIDE]
    kind = kinds[number % len(kinds)]
    if kind in OUTSIDE:
        return kind, OUTSIDE[kind](file, draw)
    return kind, gzip.compress(INSIDE[kind](gzip.decompress(file), draw), 1)


@pytest.mark.parametrize("files", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_files_are_left_out_by_name_or_give_the_map_of_the_sound_one(files, tmp_path, monkeypatch):
    """Each case is a copy of one patient with another damage in its T1ce."""
    monkeypatch.chdir(ROOT)
    make_patients(tmp_path / "one", cases=1, size=32)
    torch.manual_seed(0)
    network = merged(f"bundles/{BUNDLE}/args.yaml").get_parsed_content("network_def")
    torch.nn.init.normal_(network.network.output_block.conv.conv.weight, std=2.0)  # a map with every class
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    ends = [COHORTS["brats2021"].suffixes[name][0] for name in FOUR]
    sound = {end: (tmp_path / "one" / CASE / f"{CASE}{end}.nii.gz").read_bytes() for end in ends}
    kinds = {"sound": "sound"}
    for number in range(-1, files):
        name, changed = ("sound", sound[ends[1]]) if number < 0 else (f"case{number}", b"")
        if number >= 0:
            kinds[name], changed = damaged(number, sound[ends[1]])
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for end, file in (sound | {ends[1]: changed}).items():
            (folder / f"{name}{end}.nii.gz").write_bytes(file)
    done = run("inferring", BUNDLE, tmp_path, "brats2021", tmp_path / "data", workers=0)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr + done.stdout, done.stderr[-3000:]
    told = dict(re.findall(r"left out, (\w+): (.*)", done.stdout))
    noted = re.findall(
        r"(\w+): '.*(?:scl_slope|right angles|is taken for the background|skull-strip|goes from)", done.stdout
    )
    expected = np.asarray(nib.load(tmp_path / "results" / "segmentations" / "sound.nii.gz").dataobj)
    assert len(np.unique(expected)) == 4
    for name, kind in kinds.items():
        path = tmp_path / "results" / "segmentations" / f"{name}.nii.gz"
        assert path.exists() != (name in told), (name, kind)
        if name in told:
            assert f"{name}_t1ce.nii.gz" in told[name] and "could not be" not in told[name], (kind, told[name])
        else:
            same = np.mean(np.asarray(nib.load(path).dataobj) == expected)
            assert same > 0.999 or name in noted, f"{kind}: {same:.3f} of the map is as it should be, without a word"
    assert files / 2 < len(told) < files


@pytest.fixture
def written(tmp_path):
    """A file with some bytes of its header changed, compressed or not."""

    def write(change=bytes, more=b"", ending=".nii"):
        path = tmp_path / f"a{ending}"
        raw = change(nib.Nifti1Image(IMAGE, np.eye(4)).to_bytes())
        path.write_bytes(gzip.compress(raw) + more if ending == ".nii.gz" else raw + more)
        return str(path)

    return write


def refused(path):
    """The sentence, and the peak of the memory in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            read_nifti(path)
        return str(error.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_states_gigabytes_is_refused_without_reading_them(written, ending):
    text, peak = refused(written(header(42, "i2", 2000, 2000, 2000), ending=ending))
    assert (
        text.startswith("'")
        and f"states 2000 x 2000 x 2000 voxels in its header, and a file may have {nifti.MOST:,}" in text
    )
    assert peak < 5e6
    text, peak = refused(written(header(42, "i2", 600, 600, 600), ending=ending))
    assert "fewer voxels than its header states" in text and peak < 5e6


def test_a_gzip_file_that_unpacks_to_gigabytes_is_refused_at_the_size_of_its_header(written):
    zeros = gzip.compress(bytes(2**20))
    text, peak = refused(written(ending=".nii.gz", more=zeros * 6000))
    assert "more data than its header states" in text and peak < 60e6
    text, peak = refused(written(lambda file: file + bytes(2**26), ending=".nii.gz"))
    assert "more data than its header states" in text and peak < 5e6


def test_several_gzip_members_and_zeros_behind_them_are_one_file(tmp_path):
    raw = nib.Nifti1Image(IMAGE, np.eye(4)).to_bytes()
    parts = [gzip.compress(raw[n : n + 100]) for n in range(0, len(raw), 100)]
    (tmp_path / "a.nii.gz").write_bytes(b"".join(parts) + bytes(512))
    assert np.array_equal(read_nifti(str(tmp_path / "a.nii.gz"))[0], IMAGE)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_nifti_gives_the_same_voxels(written, form):
    assert np.array_equal(read_scan(written(saved(*form))).data, IMAGE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (header(46, "i2", 8), "more data than its header states"),
        (header(42, "i2", 10, 12), None),  # the size is right: only the other scans of the case can tell
        (header(70, "i2", 8), "is damaged or not a NIfTI file"),
        (header(112, "f4", 1e20), "its largest value is 1.1e.23, not from 1e-12 to 1e.12; check its scl_slope"),
        (header(112, "f4", 1e-20), "its largest value is 1.1e-17, not from"),
        (header(280, "f4", 1000, 0, 0, 0, 0, 1000, 0, 0, 0, 0, 1000), "extends over 12000 x 10000 x 9000 mm"),
        (header(280, "f4", 0.001, 0, 0, 0, 0, 0.001, 0, 0, 0, 0, 0.001), "its affine is singular"),
        (saved(nib.Nifti1Image, "c8"), "colours or complex numbers"),
    ],
)
def test_headers_that_contradict_the_file_or_a_head_are_refused(written, change, message):
    path = written(change)
    if message is None:
        assert read_scan(path).shape == (10, 12, 9)
        return
    with pytest.raises(InputError, match=message):
        read_scan(path)


def test_a_sheared_affine_is_noted(written):
    notes = read_scan(written(header(280, "f4", 1, 0, 0.2))).notes
    assert any("are not at right angles" in note for note in notes)
    assert not read_scan(written()).notes or not any("right angles" in note for note in read_scan(written()).notes)


def test_the_file_of_a_scan_may_be_a_link_and_not_a_pipe(written, tmp_path):
    (tmp_path / "link.nii").symlink_to(written())
    assert read_scan(str(tmp_path / "link.nii")).shape == IMAGE.shape
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(InputError, match="pipe.nii' does not exist"):
        read_scan(str(tmp_path / "pipe.nii"))
