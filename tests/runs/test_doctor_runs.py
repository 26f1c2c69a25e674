"""The doctor on real runs: failures that settings or data cause are named, and healthy runs are left in peace.

On two cores: ResNet-18 of width 8 (SEER: RegNetY-200MF), 16 px, 64 prototypes or clusters, a projector of 64 to 32.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_lightning.entry import run
from ssl_lightning.runs.metrics import read_rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACK = Path(os.environ.get("SSL_LIGHTNING_DATA", "./data")) / "cifar10.tar.xz"
HEAD = ("--model.hidden", "[64]", "--model.projection", "32")
PROTOTYPES = (*HEAD, "--model.num_prototypes", "64")
NARROW = ("--model.backbone.width", "8")
SIZES = {
    "swav": (*PROTOTYPES, *NARROW),
    "seer": (*PROTOTYPES, "--model.backbone.name", "regnety_002"),
    "deepcluster": (*NARROW, "--model.num_clusters", "64"),
    "deepcluster_v2": (*HEAD, *NARROW, "--model.num_clusters", "64"),
    "simclr": (*HEAD, *NARROW),
    "byol": (*HEAD, *NARROW, "--model.predictor_hidden", "[64]"),
    "moclr": (*HEAD, *NARROW),
    "demo": (*NARROW,),
    "instance_recognition": (*NARROW, "--model.projection", "32"),
    "local_aggregation": (
        *(*NARROW, "--model.projection", "32", "--model.num_clusters", "64", "--model.num_neighbors", "128"),
        *("--model.warmup_epochs", "3"),
    ),
    "rotation_prediction": NARROW,
    "clusterfit/3_fit": (*NARROW, "--model.num_clusters", "64"),
    "divide_contrast/4_distill": (*HEAD, *NARROW),
}
CIFAR = ("--config", "configs/data/cifar10.yaml")
ON = {"swav": CIFAR, "seer": CIFAR, "simclr": CIFAR, "byol": CIFAR, "moclr": CIFAR}
"""Crops of a fifth of a digit and less say too little about it for these, so they are run on CIFAR-10."""


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def fit(folder, config, *options, steps=300, batch=64, data=(), name="run"):
    """The exit code, and every failure that was found with the step of its first row."""
    common = ("--data.image_size", "16", "--data.batch_size", str(batch), "--trainer.max_epochs", "-1")
    bounds = ("--trainer.max_steps", str(steps), "--trainer.limit_val_batches", "0")
    quiet = ("--trainer.enable_progress_bar", "false", "--run.dir", str(folder), "--run.name", name)
    size = SIZES.get(config, SIZES["moclr"])  # the stages before divide_contrast/4_distill are MoCLR
    arguments = ["fit", "--config", f"configs/{config}.yaml", *data, *size, *common, *bounds, *quiet, *options]
    code = run(arguments)
    found = {}
    for row in read_rows(folder / name / "metrics.csv"):
        for column, value in row.items():
            if column.startswith("doctor/") and value and float(value):
                found.setdefault(column.removeprefix("doctor/"), int(row["step"]))
    return code, found


QUEUE = ("--model.queue_length", "16384", "--model.queue_start_epoch", "0", "--model.schedule.warmup_epochs", "0.1")
FAILING = {
    "stuck_at_chance": ("swav", ("--model.epsilon", "0.2"), (), {}),
    "equal_embeddings": ("swav", ("--model.projector_norm", "false", "--model.epsilon", "0.2"), (), {}),
    "rank_one": ("swav", ("--model.optimizer.lr", "3.0", "--model.optimizer.clip", "false"), (), {}),
    "unused_prototypes": ("swav", ("--model.prior_power", "3"), (), {}),
    "small_batch": ("swav", ("--model.num_prototypes", "512"), (), {"batch": 16}),
    "unnormalized_inputs": ("deepcluster", ("--data.mean", "[0, 0, 0]", "--data.std", "[1, 1, 1]"), (), {}),
    "queue_blow_up": ("swav", QUEUE, CIFAR, {"steps": 400}),
}


def test_a_loss_that_stays_above_chance_while_prototypes_are_frozen_is_named_with_its_cause(tmp_path, caplog):
    """Initial prototypes are not spread evenly: equal embeddings have a loss of 1.1 ln K."""
    if not PACK.exists():
        pytest.skip(f"found no {PACK}: set SSL_LIGHTNING_DATA to the folder that holds it")
    as_shipped = ("--model.num_prototypes", "512", "--model.epsilon", "0.2")
    code, found = fit(tmp_path, "swav", *as_shipped, steps=260, data=CIFAR)
    assert code == 0
    assert "stuck_at_chance" in found
    assert all(
        "--model.epsilon 0.03 (now 0.2)" in record.message for record in caplog.records if "Try" in record.message
    )


@pytest.mark.parametrize("failure", FAILING)
def test_a_run_that_its_settings_make_fail_is_named_with_its_suggestion(failure, tmp_path, caplog):
    config, options, data, size = FAILING[failure]
    if data and not PACK.exists():
        pytest.skip(f"found no {PACK}: set SSL_LIGHTNING_DATA to the folder that holds it")
    code, found = fit(tmp_path, config, *options, data=data, **size)
    if failure == "rank_one" and failure not in found:
        # at such a rate the last digit decides in how many directions a run ends, and CPUs differ in it
        assert code == 0
        caplog.clear()
        code, found = fit(tmp_path / "again", config, *options, "--model.optimizer.lr", "4.0", data=data, **size)
    assert code == 0
    assert found.get(failure, 1000) <= size.get("steps", 300), found
    (said,) = [record.message for record in caplog.records if f"doctor: {failure} at step" in record.message]
    assert "Try --" in said or "Try a " in said
    assert not any(record.message.count("--model.epsilon") > 1 for record in caplog.records)


def test_images_that_are_all_the_same_end_in_one_cluster_and_stop_the_run_if_requested(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for place in range(128):
        Image.fromarray(image).save(folder / f"{place}.png")
    data = ("--data", "UncuratedImages", "--data.path", str(folder), "--model.num_clusters", "4")
    still = (
        "--data.views",
        "[{count: 1, scale: [1.0, 1.0], horizontal_flip: 0.0, color_jitter: [0.0, 0.0, 0.0, 0.0], grayscale: 0.0}]",
    )
    stop = ("--doctor.on_collapse", "stop")
    code, found = fit(tmp_path / "runs", "deepcluster", *data, *still, *stop, batch=32)
    assert code == 76
    assert "one_cluster" in found
    assert "stopped by --doctor.on_collapse stop" in capsys.readouterr().err


def clusters_of_pixels(folder, k):
    """A stage file: clusters of the digits' pixels."""
    clustering = ["predict", "--config", "configs/clusterfit/2_cluster.yaml", "--data.image_size", "16"]
    clustering += ["--trainer.callbacks.path", str(folder / "edge"), "--trainer.callbacks.num_clusters", str(k)]
    clustering += ["--trainer.enable_progress_bar", "false", "--run.dir", str(folder), "--run.name", "clusters"]
    assert run(clustering) == 0
    return str(folder / "edge.safetensors")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Options that name the files of three stages: a base of 50 steps, two clusters, and experts of 25."""
    folder = tmp_path_factory.mktemp("teachers")

    def trained(config, name, steps, *options):
        assert fit(folder, config, *options, steps=steps, name=name)[0] == 0
        return str(folder / name / "checkpoints" / "last.ckpt")

    base = trained("divide_contrast/1_base", "base", 50)
    edge = clusters_of_pixels(folder, 2)  # after so few steps a base may see too small ones
    parts = [("--data.subset.path", edge, "--data.subset.value", str(k)) for k in range(2)]
    experts = [trained("divide_contrast/3_expert", f"expert-{k}", 25, *part) for k, part in enumerate(parts)]
    return ("--model.base", base, "--model.clusters", edge, "--model.experts", f"[{','.join(experts)}]")


@pytest.mark.parametrize("seed", ["0", "1", "2"])
@pytest.mark.parametrize("config", SIZES)
def test_a_healthy_run_is_left_in_peace_for_500_steps(config, seed, tmp_path, request):
    data = ON.get(config, ())
    if config == "clusterfit/3_fit":
        data = ("--model.clusters", clusters_of_pixels(tmp_path, 64))
    if config == "divide_contrast/4_distill":
        data = request.getfixturevalue("teachers")
    if data == CIFAR and not PACK.exists():
        pytest.skip(f"found no {PACK}: set SSL_LIGHTNING_DATA to the folder that holds it")
    code, found = fit(tmp_path, config, "--seed_everything", seed, steps=500, batch=32, data=data)
    assert code == 0
    assert found == {}


def test_a_short_queue_that_comes_into_use_late_is_left_in_peace(tmp_path):
    """Its loss leaves its course by 0.12 at most, in one row, and comes back."""
    if not PACK.exists():
        pytest.skip(f"found no {PACK}: set SSL_LIGHTNING_DATA to the folder that holds it")
    queue = ("--model.queue_length", "128", "--model.queue_start_epoch", "0.25")
    code, found = fit(tmp_path, "swav", *queue, steps=400, data=CIFAR)
    assert code == 0
    assert found == {}
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.csv") if row["train/queue_in_use"]]
    assert [int(row["step"]) for row in rows if float(row["train/queue_in_use"])][:1] == [200]
