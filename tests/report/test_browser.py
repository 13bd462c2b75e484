"""The report in a real browser: it draws, it reacts, and it loads nothing from the internet."""

import os
import shutil
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tumour.cases.find import find_cases
from tumour.pictures.drawing import COLOURS, rgb

from tests.cohorts import COHORTS, FOUR
from tests.conftest import REAL
from tests.report.conftest import predict, report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
SOFTWARE = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]  # WebGL without a GPU
WIDTHS = (1400, 390)
CASES = ("details.case", "all => all.map(one => one.dataset.case)")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: that of the machine, or the one that `playwright install chromium` downloads."""
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        path = own if os.path.exists(own) else shutil.which("chromium") or shutil.which("google-chrome")
        if path is None:
            pytest.skip("no Chromium on this machine: .venv/bin/playwright install chromium")
        opened = driver.chromium.launch(executable_path=path, args=SOFTWARE)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Open a report at a width; the test fails if the page has errors or requests anything but local files."""
    complaints, pages = [], []

    def open_page(folder, width=1400):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda m: (m.type == "error" or "Too many" in m.text) and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:200]}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:", "blob:")) or complaints.append(f"network: {request.url}")
            ),
        )
        page.goto((folder / "report.html").as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def pixels(locator):
    """The pixels on the screen, (rows, columns, 3)."""
    import io

    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB")).astype(int)


def share_of(colour, shown, near=40):
    """The share of the pixels with about this colour."""
    return (np.abs(shown - rgb(colour)).max(axis=-1) < near).mean()


def open_case(page, case):
    details = page.locator(f"details[data-case='{case}']")
    details.locator("summary").click()
    details.locator(".modalities .tile").first.wait_for()
    return details


def set_slice(details, index):
    details.locator("input[type=range]").evaluate(
        "(slider, index) => { slider.value = index; slider.dispatchEvent(new Event('input')); }", index
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_every_case_opens_and_its_slices_follow_the_slider(width, finished_run, visit):
    page = visit(finished_run / "report", width)
    cases = page.eval_on_selector_all(*CASES)
    assert len(cases) == 6
    for case in cases:
        details = open_case(page, case)
        assert details.locator(".modalities .tile").count() == 4
        tiles = details.locator(".modalities")
        page.wait_for_timeout(150)  # decoding
        before = pixels(tiles)
        assert share_of(COLOURS["WT"], before) > 0.001  # it opens at the slice with most tumour
        set_slice(details, 3)
        page.wait_for_timeout(50)
        assert np.abs(pixels(tiles) - before).mean() > 2
        details.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_table_of_validation_and_test_can_be_read_on_a_narrow_screen(finished_run, visit):
    page = visit(finished_run / "report", 390)
    name, dice, iou = (page.locator(".means tbody tr").first.locator("th, td").nth(n).bounding_box() for n in range(3))
    assert name["x"] + name["width"] <= dice["x"] < iou["x"] and iou["x"] + iou["width"] <= 390


CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    const colour = rgb(getComputedStyle(element).backgroundColor);
    if (colour.length == 3 || colour[3] > 0) return colour;
    return element.parentElement ? behind(element.parentElement) : [255, 255, 255];
  };
  const texts = [...document.body.querySelectorAll("*")].filter((element) => element.checkVisibility()
    && !element.closest("script, style, template, .tile, option")
    && [...element.childNodes].some((node) => node.nodeType == 3 && node.textContent.trim()));
  return texts.map((element) => {
    const [style, svg] = [getComputedStyle(element), element.closest("svg")];
    const [one, other] = [light(rgb(svg ? style.fill : style.color)), light(behind(element))];
    return [element.textContent.trim().slice(0, 40), (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
  });
}"""  # the ratio of WCAG for each element with a text of its own


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_a_light_and_on_a_dark_page_and_in_its_figures(scheme, finished_run, visit):
    page = visit(finished_run / "report")
    page.emulate_media(color_scheme=scheme)
    open_case(page, page.locator("details.case").first.get_attribute("data-case"))
    ratios = page.evaluate(CONTRASTS)
    assert len(ratios) > 100 and any(text == "epoch" for text, _ in ratios)  # an axis of a figure
    assert [(text, ratio) for text, ratio in ratios if ratio < 4.5] == []  # WCAG 2.2, level AA
    paper = pixels(page.locator("#training figure").first)[5, 5]
    assert (paper.max() < 60) == (scheme == "dark")


def test_the_keyboard_reaches_wide_tables_points_and_cases(finished_run, visit):
    page = visit(finished_run / "report", 390)
    wide = page.locator("#scores .scroll").last
    wide.focus()
    before = wide.evaluate("table => table.scrollLeft")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("before => document.activeElement.scrollLeft > before", arg=before)
    point = page.locator("#scores figure a").first
    point.focus()
    page.keyboard.press("Enter")
    page.locator(f"details[data-case='{point.get_attribute('aria-label')}'][open]").wait_for()
    case = page.locator("details.case:not([open])").first.get_attribute("data-case")
    page.locator(f"details[data-case='{case}'] summary").focus()
    page.keyboard.press("Enter")
    page.locator(f"details[data-case='{case}'] .modalities .tile").first.wait_for()


def test_on_paper_the_page_is_light_and_has_nothing_to_click(finished_run, visit):
    page = visit(finished_run / "report")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible() and page.locator(".summary").is_visible()


def test_the_layers_can_be_selected(finished_run, visit):
    page = visit(finished_run / "report")
    details = page.locator("details.case").first
    details = open_case(page, details.get_attribute("data-case"))
    shown = {}
    for layer in ("scan alone", "reference", "prediction", "errors in WT"):
        details.locator("select.layer").select_option(layer)
        page.wait_for_timeout(150)
        shown[layer] = pixels(details.locator(".modalities"))
    assert share_of(COLOURS["WT"], shown["scan alone"]) < 0.0005
    assert share_of(COLOURS["WT"], shown["prediction"]) > share_of(COLOURS["WT"], shown["reference"]) > 0.0005  # dots
    assert share_of("#009E73", shown["errors in WT"], near=60) > 0.002


def test_a_link_or_a_point_of_a_chart_opens_its_case(finished_run, visit):
    page = visit(finished_run / "report")
    point = page.locator("#scores figure").first.locator("a").last  # no other is drawn over it
    case = point.locator("title").text_content()
    assert not page.locator(f"details[data-case='{case}']").get_attribute("open")
    point.click()
    page.locator(f"details[data-case='{case}'][open] .modalities .tile").first.wait_for()
    other = next(c for c in page.eval_on_selector_all(*CASES) if c != case)
    page.goto("about:blank")
    page.goto((finished_run / "report" / "report.html").as_uri() + f"#case/{quote(other)}")
    page.locator(f"details[data-case='{other}'][open] .modalities .tile").first.wait_for()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_viewer_draws_slices_and_surfaces_in_the_colours_of_the_pictures(width, finished_run, visit):
    page = visit(finished_run / "report", width)
    details = open_case(page, page.locator("details.case").first.get_attribute("data-case"))
    details.locator("button.open").click()
    slices, solid = details.locator(".slices canvas"), details.locator(".solid canvas")
    details.locator("[data-ready]").wait_for(state="attached", timeout=30_000)
    before, turned = pixels(slices), pixels(solid)
    assert (before.max(axis=-1) > 40).mean() > 0.05 and (turned.max(axis=-1) > 20).mean() > 0.02
    hue = turned[..., 2] - turned[..., 0]  # the translucent whole tumour is the only thing that is blue
    assert (hue > 15).mean() > 0.001
    box = slices.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.12, box["y"] + box["height"] * 0.4)
    page.wait_for_timeout(300)
    assert np.abs(pixels(slices) - before).mean() > 0.5  # the planes moved
    details.locator("select.map").select_option("none")
    page.wait_for_timeout(1000)
    bare = pixels(solid)
    assert (bare[..., 2] - bare[..., 0] > 15).mean() < 0.0005
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_viewer_and_the_pictures_have_the_same_side_on_the_left(finished_run, visit):
    """In the axial pane of the viewer and in the slices, the tumour of a case is on the same side."""
    page = visit(finished_run / "report")
    sides = []
    for case in page.eval_on_selector_all(*CASES)[:3]:
        details = open_case(page, case)
        details.locator("select.layer").select_option("reference")
        details.locator("button.open").click()
        details.locator("[data-ready]").wait_for(state="attached", timeout=30_000)
        details.locator("select.map").select_option("reference")
        page.wait_for_timeout(1000)
        shape = details.evaluate("details => details.shape")
        views = (details.locator(".modalities .tile").nth(3), details.locator(".slices canvas"))
        for view, share in zip(views, (1, shape[0] / (2 * shape[0] + shape[1])), strict=True):  # the first pane
            shown = pixels(view)
            blue = shown[..., 2] - shown[..., 0] > 60
            bright = np.nonzero((shown.max(axis=-1) > 60).sum(axis=0) > 8)[0]
            blue, width = blue[:, : bright.min() + int(share * np.ptp(bright))], share * np.ptp(bright)
            sides.append((np.nonzero(blue)[1].mean() - bright.min()) / width)
        details.locator("summary").click()
    sides = np.array(sides).reshape(-1, 2)
    assert np.allclose(sides[:, 0], sides[:, 1], atol=0.2) and np.abs(sides[:, 0] - 0.5).max() > 0.15


def test_only_one_viewer_is_open_at_a_time(finished_run, visit):
    page = visit(finished_run / "report")
    first, second = (open_case(page, case) for case in page.eval_on_selector_all(*CASES)[:2])
    for details, other in ((first, second), (second, first), (first, second)):
        details.locator("button.open").click()
        details.locator("[data-ready]").wait_for(state="attached", timeout=30_000)
        assert other.locator("button.open").is_visible() and not other.locator(".solid canvas").is_visible()
        assert (pixels(details.locator(".slices canvas")).max(axis=-1) > 40).mean() > 0.05


def test_reports_without_labels_and_without_cases_open_too(patients, tmp_path, visit):
    data = tmp_path / "data"
    shutil.copytree(patients("brats2021"), data, ignore=lambda folder, names: [n for n in names if "_seg" in n])
    predict(patients("brats2021"), tmp_path, cases=1)
    report(data, tmp_path)
    page = visit(tmp_path / "report", 390)
    details = open_case(page, page.locator("details.case").first.get_attribute("data-case"))
    assert details.locator("select.layer option").all_text_contents() == ["prediction", "scan alone"]
    assert details.locator(".planes .tile").count() == 3
    details.locator("button.open").click()
    details.locator("[data-ready]").wait_for(state="attached", timeout=30_000)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real patients of ../shared/data are not on this machine")
def test_a_report_of_real_patients_opens_every_case_and_stays_small(visit, tmp_path):
    """Their references, moved, are used as predictions."""
    data = REAL / "BraTS2018"
    (tmp_path / "segmentations").mkdir()
    cases = find_cases(str(data), COHORTS["brats2018"], FOUR).complete
    for shift, case in enumerate(cases):
        label = nib.load(case.label)
        moved = np.roll(np.asarray(label.dataobj), shift % 5, axis=0)
        nib.save(nib.Nifti1Image(moved, label.affine), tmp_path / "segmentations" / f"{case.name}.nii.gz")
    report(data, tmp_path, "brats2018")
    folder = tmp_path / "report"
    seen = [folder / "report.html", *(folder / "cases").rglob("*")]
    assert sum(path.stat().st_size for path in seen if path.is_file()) < 30e6 * len(cases) / 20 + 4e6  # and the viewer
    page = visit(folder)
    names = page.eval_on_selector_all(*CASES)
    assert sorted(names) == [case.name for case in cases]
    for name in names:
        open_case(page, name)
