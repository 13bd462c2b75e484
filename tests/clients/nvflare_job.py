"""Two rounds of NVFlare at two sites: `python nvflare_job.py BUNDLE DATA FOLDER` writes the job and simulates it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

bundle, data, folder = map(Path, sys.argv[1:])
shutil.copytree(bundle, folder / "job" / "app" / "custom")  # each site gets a copy, with its modules on the path
common = "nvflare.app_common"
tiny = {"dataset_dir": str(data), "patch_size": [32, 32, 32], "workers": 0, "overlap": 0, "precision": "float32"}
training = tiny | {"iterations_per_epoch": 2, "epochs": 2, "val_interval": 1}
algo = {"bundle_root": "custom", "local_epochs": 1, "train_kwargs": training, "eval_kwargs": tiny}
components = {
    "persistor": ("monai_nvflare.monai_bundle_persistor.MonaiBundlePersistor", {"bundle_root": "custom"}),
    "generator": (f"{common}.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator", {}),
    "aggregator": (
        f"{common}.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator",
        {"expected_data_kind": "WEIGHT_DIFF"},
    ),
}
rounds = {"min_clients": 2, "num_rounds": 2, "aggregator_id": "aggregator", "persistor_id": "persistor"}
rounds |= {"shareable_generator_id": "generator", "train_task_name": "train"}
executor = {"client_algo_id": "algo", "key_metric": "dice"}
path = "monai_nvflare.client_algo_executor.ClientAlgoExecutor"
files = {
    "meta.json": {"name": "bundle", "deploy_map": {"app": ["@ALL"]}, "min_clients": 2},
    "app/config/config_fed_server.json": {
        "format_version": 2,
        "components": [{"id": name, "path": path, "args": args} for name, (path, args) in components.items()],
        "workflows": [
            {"id": "rounds", "path": f"{common}.workflows.scatter_and_gather.ScatterAndGather", "args": rounds}
        ],
    },
    "app/config/config_fed_client.json": {
        "format_version": 2,
        "executors": [{"tasks": ["train"], "executor": {"path": path, "args": executor}}],
        "components": [{"id": "algo", "path": "monai.fl.client.MonaiAlgo", "args": algo}],
    },
}
for name, content in files.items():
    (folder / "job" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "job" / name).write_text(json.dumps(content))
simulate = [str(Path(sys.executable).with_name("nvflare")), "simulator", "-n", "2", "-t", "2"]
subprocess.run([*simulate, "-w", str(folder / "workspace"), str(folder / "job")], check=True)
