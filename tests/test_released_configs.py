"""Configurations at paper scale, key by key against the released ones; the head of each names what differs."""

from pathlib import Path

import pytest
import yaml

SCALE = Path(__file__).parents[1] / "configs" / "scale"

SWAV = {
    "model.optimizer.init_args.lr": 4.8,
    "model.optimizer.init_args.weight_decay": 1e-6,
    "model.optimizer.init_args.trust": 0.001,
    "model.schedule.init_args.warmup_epochs": 10,
    "model.schedule.init_args.start": 0.3 / 4.8,
    "model.schedule.init_args.end": 0.0048 / 4.8,
    "model.hidden": [2048],
    "model.projection": 128,
    "data.batch_size": 64 * 64,
    "data.views.0.count": 2,
    "data.views.0.scale": [0.14, 1.0],
    "data.views.1.count": 6,
    "data.views.1.scale": [0.05, 0.14],
    "group_size": 8,
    "max_epochs": 800,
}
SEER = {
    "model.num_prototypes": 16_000,
    "model.freeze_steps": 313,
    "model.optimizer.init_args.weight_decay": 1e-5,
    "model.projection": 256,
    "data.views.1.count": 4,
    "group_size": 64,
}
VISSL = {
    "model.optimizer.init_args.lr": 0.1,
    "model.optimizer.init_args.momentum": 0.9,
    "model.optimizer.init_args.weight_decay": 1e-4,
    "model.schedule.init_args.epochs": [30, 60, 90, 100],
    "max_epochs": 105,
}
"""Of rotation prediction and ClusterFit."""
RELEASED = {
    "swav_resnet50": SWAV | {"model.num_prototypes": 3000, "model.epsilon": 0.05, "model.freeze_steps": 313},
    "deepcluster_v2_resnet50": SWAV | {"model.num_clusters": 3000, "model.num_heads": 3},
    "seer_32gf": SEER | {"model.hidden": [4096, 4096], "model.projector_norm": True},
    "seer_64gf": SEER | {"model.hidden": [8192, 8192], "model.projector_norm": False},
    "seer_128gf": SEER
    | {
        "data.batch_size": 32 * 16 * 8,
        "model.optimizer.init_args.lr": 0.3 * 4096 / 256,
        "model.schedule.class_path": "ssl_lightning.optim.MultiStep",
        "model.schedule.init_args.epochs": [],
        "model.hidden": [8192, 8192],
    },
    "seer_256gf": SEER | {"data.batch_size": 16 * 64 * 8, "model.optimizer.init_args.lr": 9.6},
    "rotation_prediction_resnet50": VISSL | {"data.batch_size": 256 // 4, "model.optimizer.init_args.nesterov": False},
    "clusterfit_resnet50": VISSL | {"data.batch_size": 256, "model.num_clusters": 16_000},
    "instance_recognition_resnet50": {
        "model.negatives": 4096,
        "model.temperature": 0.07,
        "model.optimizer.init_args.lr": 0.03,
        "model.schedule.init_args.epochs": [120, 160],
        "data.batch_size": 256,
        "data.views.0.color_jitter": [0.4, 0.4, 0.4, 0.4],
        "data.views.0.grayscale": 0.2,
        "max_epochs": 200,
    },
    "deepcluster_alexnet": {
        "model.num_clusters": 10_000,
        "model.sobel": True,
        "model.optimizer.init_args.lr": 0.05,
        "model.optimizer.init_args.weight_decay": 1e-5,
        "data.batch_size": 256,
    },
}
NAMED = {
    "swav_resnet50": ["bfloat16", "blur"],
    "deepcluster_v2_resnet50": ["k-means", "blur"],
    "seer_32gf": ["244,000", "bfloat16"],
    "seer_128gf": ["constant rate", "The paper has batch 8192"],
    "rotation_prediction_resnet50": ["one random rotation", "biases of the head"],
    "clusterfit_resnet50": ["0.025", "decays biases"],
    "instance_recognition_resnet50": ["grayscale follows the color jitter"],
    "divide_contrast_resnet50": ["sqrt(D)"],
    "deepcluster_alexnet": ["subsample", "200 epochs"],
}
"""Words of the departures that the head of each file names."""


def value(config, path):
    trainer = config["trainer"]
    if path == "group_size":
        (callback,) = trainer["callbacks+"]
        assert callback["class_path"] == "ssl_lightning.callbacks.SyncBatchNorm"
        return callback["init_args"]["group_size"]
    if path == "max_epochs":
        return trainer["max_epochs"]
    section, *keys = path.split(".")
    found = config[section]["init_args"]
    for key in keys:
        found = found[int(key) if isinstance(found, list) else key]
    return found


@pytest.mark.parametrize("name", RELEASED)
def test_keys_are_those_of_the_released_configuration(name):
    config = yaml.safe_load((SCALE / f"{name}.yaml").read_text())
    for path, expected in RELEASED[name].items():
        found = value(config, path)
        assert found == (pytest.approx(expected) if isinstance(expected, float) else expected), path


@pytest.mark.parametrize("name", NAMED)
def test_departures_are_named_at_the_head(name):
    lines = (SCALE / f"{name}.yaml").read_text().splitlines()
    head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert "all values" not in head.lower()
    for words in NAMED[name]:
        assert words in head
