"""The report of a run: complete, offline, and useful for runs without some of the results."""

import base64
import gzip
import json
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tumour.cases.find import find_cases
from tumour.errors import InputError
from tumour.files import probability_file, save_json
from tumour.pictures import volumes
from tumour.records import csv_text
from tumour.scores.quality import Judgement, write_table

from tests.cohorts import COHORTS, FOUR
from tests.report.conftest import predict, record, report, training_log
from tools.measure import cases as measure
from tools.report.charts import curves, svg
from tools.report.report import PAGE, draw_case
from tools.report.results import Results
from tools.score import score


class Links(HTMLParser):
    """All addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "xlink:href", "data-file")]


def test_a_report_works_offline_and_every_file_that_it_names_exists(finished_run):
    folder = finished_run / "report"
    text = (folder / "report.html").read_text()
    assert all((PAGE / name).read_text().strip() in text for name in ("report.js", "report.css"))
    addresses = Links(text).found
    ids = set(re.findall(r'id="([^"]+)"', text))
    assert {"curves.png", "curves.svg", "scores.csv", "cases/niivue.js"} <= set(addresses)
    for address in addresses:
        here = unquote(address[1:]) in ids if address.startswith("#") else (folder / unquote(address)).is_file()
        assert here, address
    shown = re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>', "", text, flags=re.DOTALL)
    assert not re.search(r"https?:|@import|url\(['\"]?//", shown)
    assert not any("://" in path.read_text() for path in folder.glob("cases/*0*.js"))


def test_the_worst_case_comes_first(finished_run):
    scores = pd.read_csv(finished_run / "scores" / "scores.csv")
    mean = scores[scores["kind"] == "region"].groupby("case")["dice"].mean()
    listed = re.findall(r'data-case="([^"]+)"', (finished_run / "report" / "report.html").read_text())
    assert len(listed) == 6 and mean.nunique() > 3
    assert [mean[case] for case in listed] == sorted(mean)


def test_the_table_shows_the_means_and_their_intervals(finished_run):
    text = (finished_run / "report" / "report.html").read_text()
    dice = json.loads((finished_run / "scores" / "summary.json").read_text())["scores"]["WT"]["dice"]
    row = text[text.index("</i>WT</th>") :].split("</tr>")[0]
    assert f"{dice['mean']:.3f}" in row and f"{dice['interval_low']:.3f} to {dice['interval_high']:.3f}" in row


def test_one_table_has_the_means_in_percent_of_the_best_validation_and_of_the_test(finished_run):
    text = (finished_run / "report" / "report.html").read_text()
    table = text[text.index('class="means"') :].split("</table>")[0]
    scores = pd.read_csv(finished_run / "scores" / "scores.csv")
    dice, iou = 100 * scores[scores["kind"] == "region"][["dice", "iou"]].mean()  # every case has every region
    assert re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>", table) == [
        ("validation, epoch 2 (used for model selection)", "90.00", "80.00"),
        ("test", f"{dice:.2f}", f"{iou:.2f}"),
    ]
    written = pd.read_csv(finished_run / "report" / "means.csv", index_col=0)
    assert written.loc["test", "IoU %"] == pytest.approx(iou, abs=0.01) and 5 < iou < dice - 1 < 99


def test_every_point_of_the_charts_names_and_opens_its_case(finished_run):
    text = (finished_run / "report" / "report.html").read_text()
    points = re.findall(r'<a xlink:href="#case/([^"]*)"[^>]*><title>([^<]*)</title>', text)
    rows, lesions = (pd.read_csv(finished_run / "scores" / f"{name}.csv") for name in ("scores", "lesions"))
    counted = lesions[(lesions["kind"] == "region") & (lesions["outcome"] != "small")]
    assert len(points) == 4 * (rows["kind"] == "region").sum() + len(counted)  # Dice, HD95, lesion-wise Dice, volume
    assert all(address == title for address, title in points) and {t for _, t in points} == set(rows["case"])


def test_the_best_epoch_is_marked(finished_run):
    text = (finished_run / "report" / "report.html").read_text()
    assert "epoch 2 has the best validation" in text and text.count("best epoch, 2") == 4


def test_one_chart_shows_the_loss_of_training_and_of_validation(finished_run):
    page = (finished_run / "report" / "report.html").read_text()
    (chart,) = (c for c in re.findall(r"<svg.*?</svg>", page, re.DOTALL) if ">Loss<" in c)
    assert ">train, patches<" in chart and ">validate, whole brains<" in chart
    older = curves(training_log().drop(columns="validate_loss"), ["WT"])
    assert "validate" not in svg(older[0]) and "train, patches" in svg(older[0])


def test_pictures_for_papers_are_in_the_folder_of_the_report(finished_run):
    names = {path.name for path in (finished_run / "report").iterdir()}
    assert {"curves.png", "curves.svg", "scores.csv"} <= names
    assert sum(name.endswith("_overlay.png") for name in names) == sum(name.endswith(".gif") for name in names) == 6


def test_scans_without_labels_have_a_report_without_scores(patients, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(patients("brats2021"), data, ignore=lambda folder, names: [n for n in names if "_seg" in n])
    predict(patients("brats2021"), tmp_path, cases=2)
    text = report(data, tmp_path)
    assert text.count('<details class="case"') == 2 and "The results folder has no scores" in text
    assert "errors in" not in (next((tmp_path / "report" / "cases").glob("BraTS*.js"))).read_text()
    assert "missed voxels" not in text and "worst first" not in text


def test_a_case_has_its_traffic_light_and_its_uncertainty_and_without_scores_the_worst_prediction_comes_first(
    patients, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(patients("brats2021"), data, ignore=lambda folder, names: [n for n in names if "_seg" in n])
    predict(patients("brats2021"), tmp_path, cases=2)
    first, second = sorted(path.name[:-7] for path in (tmp_path / "segmentations").iterdir())
    regions = {"WT": 0.5, "ET": 0.5}
    judged = [
        Judgement(first, "yellow", 0.71, 0.6, 0.8, regions, [3, 17]),
        Judgement(second, "red", 0.2, 0.1, 0.3, regions),
    ]
    write_table((each.row() for each in judged), tmp_path / "segmentations")
    path = tmp_path / "segmentations" / f"{first}.nii.gz"
    label = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(label.shape, 2, np.uint8), label.affine), path)
    for region, value in {"WT": 255, "TC": 0, "ET": 0}.items():
        half = np.full(label.shape, value, np.uint8)
        half[20:] = 128  # a probability of about 0.5
        image = nib.Nifti1Image(half, label.affine)
        image.header.set_slope_inter(1 / 255, 0)
        path = probability_file(tmp_path / "segmentations", first, region)
        path.parent.mkdir(exist_ok=True)
        nib.save(image, path)
    text = report(data, tmp_path)
    assert re.findall(r'data-case="([^"]+)"', text) == [second, first] and "worst first" in text
    assert "red: segment it manually; predicted Dice 0.20 (0.10 to 0.30)" in text
    assert "yellow: look at it, slices 3, 17 of the scan; predicted Dice 0.71 (0.60 to 0.80)" in text
    drawn = {case: (tmp_path / "report" / "cases" / f"{case}.js").read_text() for case in (first, second)}
    content = json.loads(drawn[first][drawn[first].index("{") : drawn[first].rindex("}") + 1])
    assert '"uncertainty": null' in drawn[second] and "uncertainty" in content["layers"]
    stored = gzip.decompress(base64.b64decode(content["uncertainty"].split(",")[1]))
    values = np.unique(np.asanyarray(nib.Nifti1Image.from_bytes(stored).dataobj))
    assert values.tolist() == [0, 255]  # certain, and one bit


def test_scores_and_probabilities_of_an_earlier_label_map_are_noted(patients, tmp_path):
    data, maps = patients("brats2021"), tmp_path / "segmentations"
    predict(data, tmp_path, cases=2)
    first, second = sorted(path.name[:-7] for path in maps.iterdir())
    score(str(data), str(maps), "brats2021", str(tmp_path / "scores"), workers=1)
    label = nib.load(maps / f"{second}.nii.gz")
    probability_file(maps, second, "WT").parent.mkdir(exist_ok=True)
    values = (np.asarray(label.dataobj) > 0).astype(np.float32)
    nib.save(nib.Nifti1Image(values, label.affine), probability_file(maps, second, "WT"))
    now = ("its scores are of another label map", "its probabilities are of another label map")
    text = report(data, tmp_path)
    assert not any(note in text for note in now)
    assert "uncertainty" in json.loads(re.search(r"{.*}", slides_of(tmp_path, second), re.DOTALL)[0])["layers"]
    nib.save(nib.Nifti1Image(np.roll(np.asarray(label.dataobj), 9, axis=0), label.affine), maps / f"{second}.nii.gz")
    text = report(data, tmp_path)
    assert all(text.count(note) == 1 for note in now) and f"{second}: {now[1]}" in text
    assert '"uncertainty": null' in slides_of(tmp_path, second)


def slides_of(folder, case):
    return (folder / "report" / "cases" / f"{case}.js").read_text()


def test_a_case_that_cannot_be_drawn_is_reported_and_the_others_are_drawn(patients, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(patients("brats2021"), data)
    predict(data, tmp_path, cases=3)
    broken = sorted(data.glob("*/*_t2.nii.gz"))[1]
    broken.write_bytes(broken.read_bytes()[:500])
    sorted(data.glob("*/*_t1ce.nii.gz"))[5].unlink()
    text = report(data, tmp_path)
    assert text.count('<details class="case"') == 2
    assert f"{broken.parent.name}: &#39;{broken}&#39; is incomplete or damaged" in text
    assert "BraTS2021_00005: BraTS2021_00005_t1ce.nii.gz is missing" in text


def test_a_training_stopped_after_one_epoch_has_its_curves(patients, tmp_path):
    training_log(epochs=1).to_csv(tmp_path / "training.csv", index=False)
    text = report(patients("brats2021"), tmp_path)
    assert "1 epochs" not in text and "1 epoch, " in text and "no epoch was validated" in text
    assert 'class="means"' not in text and not (tmp_path / "report" / "means.csv").exists()
    assert "There is nothing to draw" in text and (tmp_path / "report" / "curves.svg").is_file()


def test_a_folder_without_a_run_gives_one_clear_sentence(patients, tmp_path):
    with pytest.raises(InputError, match="contains neither training.csv nor label maps"):
        report(patients("brats2021"), tmp_path / "empty")


@pytest.mark.parametrize("name", ["NA", "null", "nan", "1e3"])
def test_a_case_may_have_a_name_that_pandas_reads_as_missing_or_as_a_number(patients, tmp_path, name):
    data = tmp_path / "data"
    source = next(path for path in sorted(patients("brats2021").iterdir()) if path.is_dir())
    for path in source.iterdir():
        (data / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, data / name / path.name.replace(source.name, name))
    predict(data, tmp_path, cases=1)
    score(str(data), str(tmp_path / "segmentations"), "brats2021", str(tmp_path / "scores"), workers=1)
    text = report(data, tmp_path)
    shown = text[text.index(f'data-case="{name}"') :]
    assert "WT 1.000" in shown.split("</details>")[0]


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "https://example.org", "../../secret.yaml", "training.yaml"]
)
def test_only_a_config_in_the_folder_of_the_report_is_linked(patients, tmp_path, address):
    """The records of runs may come from other people."""
    training_log().to_csv(tmp_path / "training.csv", index=False)
    run = {"run": "training", "state": "finished", "started": "2026-01-01 00:00", "seconds": 1, "device": "cpu"}
    run |= {"peak_memory_gb": {}, "versions": {}, "left_out": [], "files": [], "settings": [], "config": address}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "training.json").write_text(json.dumps(run))
    (tmp_path / "runs" / "training.yaml").write_text("epochs: 1\n")
    found = Links(report(patients("brats2021"), tmp_path)).found
    assert (address in found) == (address == "training.yaml")


def test_notes_on_cases_that_were_used_are_listed_once(tmp_path):
    training_log().to_csv(tmp_path / "training.csv", index=False)
    notes = [{"case": "B_1", "why": "the predicted label map contains no tumour; look at its scans"}]
    for name in ("evaluating", "inferring"):
        record(tmp_path, name=name, notes=notes)
    assert report(None, tmp_path).count("<li>B_1: the predicted label map contains no tumour; look at its scans.") == 1


def test_the_measurements_of_the_label_maps_are_a_table_of_the_page(patients, tmp_path):
    predict(patients("brats2021"), tmp_path, cases=2)
    assert "The results folder has no measurements" in report(patients("brats2021"), tmp_path)
    maps = str(tmp_path / "segmentations")
    measure(maps, "brats2021", maps)
    text = report(patients("brats2021"), tmp_path)
    rows = pd.read_csv(tmp_path / "report" / "measurements.csv")
    shown = text[text.index('class="measured"') :].split("</table>")[0]
    first = re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td>", shown)[0]
    assert first == (rows["case"][0], str(round(rows["TC_ml"][0], 1)))
    assert "not for clinical use" in text.split('id="measurements"')[1]


def test_a_case_that_was_prepared_from_raw_scans_shows_its_registration(patients, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(patients("brats2021"), data)
    predict(data, tmp_path, cases=2)
    (data / "BraTS2021_00001" / "registration.png").write_bytes(b"a picture")
    text = report(data, tmp_path)
    shown = [case for case in re.findall(r'src="cases/([^"]*)_registration.png"', text)]
    assert shown == ["BraTS2021_00001"]
    assert (tmp_path / "report" / "cases" / "BraTS2021_00001_registration.png").read_bytes() == b"a picture"


def test_a_case_with_an_earlier_time_point_shows_what_is_gone_and_new_since(patients, tmp_path):
    predict(patients("brats2021"), tmp_path, cases=2)
    row = "patient,before,after,region\nP,BraTS2021_00000,BraTS2021_00001,WT\n"
    (tmp_path / "segmentations" / "changes.csv").write_text(row)
    text = report(patients("brats2021"), tmp_path)
    assert re.findall(r'src="cases/([^"]*)_change.png"', text) == ["BraTS2021_00001"]
    assert "Change since BraTS2021_00000" in text
    drawn = np.asarray(Image.open(tmp_path / "report" / "cases" / "BraTS2021_00001_change.png"), int)
    assert (drawn.max(axis=2) - drawn.min(axis=2) > 60).any()  # the label maps of two patients differ


def test_the_scans_of_a_case_with_an_earlier_time_point_are_read_once(patients, tmp_path, monkeypatch):
    first, case = find_cases(str(patients("brats2021")), COHORTS["brats2021"], FOUR).complete[:2]
    read, plain = [], volumes.read_scan
    monkeypatch.setattr(volumes, "read_scan", lambda path: read.append(path) or plain(path))
    for name, label in ((first.name, first.label), (case.name, case.label)):
        shutil.copy(label, tmp_path / f"{name}.nii.gz")
    earlier = {case.name: first.name}
    prediction = str(tmp_path / f"{case.name}.nii.gz")
    assert draw_case(case, prediction, COHORTS["brats2021"], FOUR, tmp_path / "report", earlier, {}) == (None, None)
    assert sorted(read) == sorted(case.images)
    assert (tmp_path / "report" / "cases" / f"{case.name}_change.png").is_file()


def test_a_sentence_on_top_says_how_many_cases_how_good_and_which_need_a_look():
    notes = [{"case": "a", "why": "a note"}, {"case": "a", "why": "another"}]
    quality = {"b": {"light": "red"}, "c": {"light": "green"}, "d": {"light": "yellow"}}
    results = Results(*[pd.DataFrame()] * 3, {}, [{"left_out": [], "notes": notes}], {}, quality)
    dice = {"a": {"TC": 0.8, "WT": 0.9}, "b": {"TC": 0.3, "WT": 0.8}, "c": {"TC": 1.0, "WT": 0.6}, "d": {}}
    assert results.sentence([*dice.items()], 1) == (
        "4 cases, 1 left out, mean Dice 0.73. 3 to look at: 1 have a region with a Dice below 0.5, 1 have a note, "
        "2 have a predicted quality that is not green."
    )
    assert results.sentence([("c", dice["c"])], 0) == "1 case, mean Dice 0.80. None needs a look."


def test_regions_that_have_no_score_are_left_out_of_means_and_of_the_order(patients, tmp_path):
    predict(patients("brats2021"), tmp_path, cases=2)
    scores = tmp_path / "scores"
    score(str(patients("brats2021")), str(tmp_path / "segmentations"), "brats2021", str(scores), "goat2026", workers=1)
    table = pd.read_csv(scores / "scores.csv")
    assert table["dice"].isna().any()  # patient 1 has no enhancing tumour
    text = report(patients("brats2021"), tmp_path)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


HOSTILE = "<img src=x onerror=alert(1)>\"'><script>alert(1)</script> $\\bad{$"


def test_no_value_of_a_record_becomes_html(tmp_path):
    """Every text that a record may contain, names of regions and patients with it."""
    mean = {"cases": 2, "mean": 0.5, "interval_low": 0.4, "interval_high": 0.6}
    scores = {HOSTILE: {"kind": "region", "dice": mean, "hd95": mean, "iou": mean}}
    left = {"case": HOSTILE, "why": HOSTILE}
    run = {name: HOSTILE for name in ("run", "state", "started", "device", "config")} | {"seconds": 1}
    run |= {"peak_memory_gb": {HOSTILE: 1}, "versions": {HOSTILE: HOSTILE}, "left_out": [left], "notes": [left]}
    run |= {"settings": [HOSTILE], "files": [HOSTILE]}
    save_json(run, tmp_path / "runs" / "training.json")
    save_json({"train": [HOSTILE], "validate": [HOSTILE], "test": []}, tmp_path / "patients.json")
    groups = [{HOSTILE: HOSTILE}]
    summary = {"challenge": HOSTILE, "folds": 2, "groups": groups, "scores": scores}
    save_json(summary, tmp_path / "scores" / "summary.json")
    row = {"case": HOSTILE, "kind": "region", "region": HOSTILE, "dice": 0.5, "hd95": 1.0}
    row |= {"reference_ml": 1.0, "predicted_ml": 1.0}
    (tmp_path / "scores" / "scores.csv").write_text(csv_text([row, {**row, "case": "=1+1"}]))
    training_log().to_csv(tmp_path / "training.csv", index=False)
    text = report(None, tmp_path)
    assert "&lt;img" in text and "<img src=x" not in text and "onerror=alert(1)>" not in text
    assert text.count("<script>") == 1
    written = (tmp_path / "report" / "means.csv").read_text()
    assert written.startswith('"patients","Dice %","IoU %"\n"validation, epoch 2 (used for model selection)",90.0,80.0')
