"""What a run writes: TensorBoard, MLflow, its record and, if asked, a report."""

import io
import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tumour.pictures.drawing import COLOURS, rgb
from tumour.scores.evaluation import scores_of

from tests.conftest import BUNDLES, succeed


@pytest.fixture(scope="module")
def trained(patients, tmp_path_factory):
    """The folder of a training of two epochs with a recipe, tracked by MLflow where it is installed."""
    folder = tmp_path_factory.mktemp("tracked")
    given = {"recipe": "neuroseg3d_brats2021"} | (
        {"tracking": "bundles/common/mlflow.yaml"} if find_spec("mlflow") else {}
    )
    succeed("training", BUNDLES[0], folder, "brats2021", patients("brats2021"), **given)
    return folder


def test_tensorboard_shows_the_curves_and_one_picture_per_epoch(trained):
    board = EventAccumulator(str(trained / "results" / "tensorboard"))
    board.Reload()
    pairs = {f"{metric}/{part}" for metric in ("loss", "dice_WT", "iou_ET") for part in ("train", "validate")}
    assert pairs | {"learning_rate"} <= set(board.Tags()["scalars"])
    pictures = board.Images("first validation patient")
    assert [picture.step for picture in pictures] == [1, 2]
    shown = np.asarray(Image.open(io.BytesIO(pictures[0].encoded_image_string)).convert("RGB"))
    assert (shown == rgb(COLOURS["WT"])).all(axis=-1).any()  # the reference, whatever an untrained network predicts


def test_mlflow_stores_the_settings_the_metrics_and_the_files(trained):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(
        f"sqlite:///{trained}/results/mlruns.db"
    )  # set_tracking_uri would affect the runs of other tests
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED" and {"fold", "cohort", "learning_rate"} <= set(run.data.params)
    assert run.data.params["patch_size"] == "[32, 32, 32]"
    assert np.isfinite(run.data.metrics["dice_WT"]) and np.isfinite(run.data.metrics["train_loss"])
    for metric in ("iou_WT", "train_iou_WT", "loss"):
        assert [entry.step for entry in client.get_metric_history(run.info.run_id, metric)] == [1, 2]
    kept = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"model.pt", "patients.json", "training.csv"} <= kept
    assert any(name.startswith("config") for name in kept)


def test_a_run_writes_its_record_and_if_asked_a_report(trained, patients):
    data, results = patients("brats2021"), trained / "results"
    succeed("evaluating", BUNDLES[0], trained, "brats2021", data, recipe="neuroseg3d_brats2021", report_at_end=True)
    text = (results / "report" / "report.html").read_text()
    kept = scores_of(trained / "models" / "model.pt")["brats2021"]["scores"]
    means = {
        name: of["dice"]["mean"]
        for name, of in json.loads((results / "scores" / "summary.json").read_text())["scores"].items()
    }
    assert {name: of["dice"]["mean"] for name, of in kept.items()} == {name: means[name] for name in ("TC", "WT", "ET")}
    for name in ("training", "evaluating"):
        record = json.loads((results / "runs" / f"{name}.json").read_text())
        assert record["state"] == "finished" and record["seconds"] > 0 and record["peak_memory_gb"]
        assert f"{name}: {record['started']}" in text
        assert {"loss = @losses::dice", "patch_size = [32, 32, 32]"} <= set(record["settings"])
        config = ConfigParser.load_config_file(results / "report" / record["config"])
        assert config["loss"] == "@losses::dice" and f'<a href="{record["config"]}">' in text
    assert text.count("<code>loss = @losses::dice</code>") == text.count("recipes/neuroseg3d_brats2021.yaml") == 2
    assert 'class="means"' in text
    (case,) = re.findall(r'data-case="([^"]+)"', text)  # the one not used for training
    assert text.count(f"<title>{case}</title>") == 3 * 3 and f"{BUNDLES[0]} on brats2021" in text
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{results}/mlruns.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert "report.zip" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    (results / "segmentations").rename(trained / "elsewhere")
    assert "0 cases drawn" in succeed("reporting", BUNDLES[0], trained, "brats2021", data)
