"""Programs that take bundles: each takes a release as it is. A client that is not installed is skipped by name."""

import json

import pytest

from tests.test_clean_machine import Home, twelve  # noqa: F401  the fixture
from tools.verify import TINY, TRAINING

ROUNDS = """
import json, sys, torch
home, train, evaluate = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject
algo = MonaiAlgo(home, local_epochs=1, train_kwargs=train, eval_kwargs=evaluate)
algo.initialize({"CLIENT_NAME": "site-1"})
weights = {name: value.clone() for name, value in algo.trainer.network.state_dict().items()}
for sent in (weights, {name: value + 0.5 for name, value in weights.items()}):
    algo.train(ExchangeObject(weights=sent))
    moved = algo.get_weights().weights
    assert moved.keys() == weights.keys() and all(not value.any() for value in moved.values()), "not the weights sent"
metrics = algo.evaluate(ExchangeObject(weights=weights)).metrics
assert {"dice", "dice_TC", "dice_WT", "dice_ET"} <= set(metrics), metrics
print(algo.trainer.state.epoch, "rounds")
algo.finalize()
"""


def test_monai_algo_trains_two_rounds_from_the_weights_that_the_server_sent(twelve, tmp_path):  # noqa: F811
    """At a learning rate of zero what comes back is what was sent: no checkpoint of an earlier round comes between."""
    import sys

    home = Home("neuroseg3d", sys.executable, tmp_path, twelve)
    given = TINY | {"dataset_dir": str(twelve), "bundle_root": str(home.folder)}
    train = given | TRAINING | {"learning_rate": 0.0, "resume": True}
    printed = home.python_runs("-c", ROUNDS, home.folder, json.dumps(train), json.dumps(given))
    assert "2 rounds" in printed
