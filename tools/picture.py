"""Draw the picture of README.md: a synthetic patient with the predicted tumour, and a report.

python -m tools picture --results build/picture/results --patients build/picture/patients
"""

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from tumour.cases.find import find_cases
from tumour.errors import InputError
from tumour.pictures.drawing import outlined, write_image
from tumour.pictures.volumes import read_case

from tools.cohorts import cohort_named, modalities_of

WIDTH, HEIGHT, GAP = 1600, 860, 12  # pixels
REPORT = 1240  # pixels, the width of its window
DARK = "#17181c"


def tiles(patients: str, segmentations: Path, case: str) -> Image.Image:
    """The four scans at the slice with most tumour, with the predicted outlines, in two rows."""
    cohort = cohort_named("brats2021")
    found = {each.name: each for each in find_cases(patients, cohort, modalities_of(cohort)).complete}
    if case not in found:
        raise InputError(f"'{patients}' has no case {case}; it has {', '.join(found)}.")
    volumes = read_case(found[case], segmentations / f"{case}.nii.gz", cohort, modalities_of(cohort))
    index, pixel = volumes.centre()[2], float(min(volumes.spacing)) / 4
    drawn = [outlined(volumes, name, "axial", index, pixel, ["prediction"]) for name in volumes.images]
    width, height = drawn[0].size
    page = Image.new("RGB", (2 * width, 2 * height), "black")
    for number, image in enumerate(drawn):
        page.paste(image, (number % 2 * width, number // 2 * height))
    return page


def screenshot(report: Path, width: int, height: int) -> Image.Image:
    """The scores and the first cases of a report, in the colours of a dark page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser)  # None: the one of `playwright install chromium`
        page = opened.new_page(
            viewport={"width": REPORT, "height": round(REPORT * height / width)}, color_scheme="dark"
        )
        page.goto(report.resolve().as_uri())
        page.get_by_text("95% bootstrap intervals").first.evaluate("text => text.scrollIntoView()")
        page.wait_for_timeout(500)  # the pictures of the cases
        shot = page.screenshot()
        opened.close()
    return Image.open(io.BytesIO(shot)).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def draw(results: str, patients: str, output: str = "docs/picture.webp", case: str = "BraTS2021_00004") -> str:
    """Draw the picture of README.md.

    Args:
        results: output folder of an evaluation of synthetic patients, with its report.
        patients: the folder of these patients.
        output: the file to write.
        case: the patient to draw.
    """
    left = tiles(patients, Path(results) / "segmentations", case)
    left = left.resize((round(left.width * HEIGHT / left.height), HEIGHT), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (WIDTH, HEIGHT), DARK)
    page.paste(left, (0, 0))
    start = left.width + GAP
    page.paste(screenshot(Path(results) / "report" / "report.html", WIDTH - start, HEIGHT), (start, 0))
    write_image(page, Path(output), format="WEBP", quality=88, method=6)
    return f"{output}: {page.width} x {page.height} pixels, {Path(output).stat().st_size / 1000:.0f} kB"
