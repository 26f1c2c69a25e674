"""Every method: killed in the middle and resumed, it equals a run that nothing interrupted, to the bit."""

import pytest
import torch

from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.clustering import Clustering
from ssl_lightning.data import Digits
from ssl_lightning.methods import MoCLR, RotationPrediction
from ssl_lightning.models import ResNet18

from .conftest import differences

pytestmark = pytest.mark.slow

SMALL = ("--model.hidden", "[24]", "--model.projection", "12", "--data.image_size", "16")
QUEUE = ("--model.queue_length", "300", "--model.queue_start_epoch", "1.0")
METHODS = {
    # frozen prototypes in the first epoch, a queue from the second that is full in the third: kills around each change
    "swav": (
        ("--config", "configs/swav.yaml", *SMALL, *QUEUE, "--model.num_prototypes", "20"),
        ["kill@step=6", "kill@step=15", "kill@step=25"],
    ),
    # evaluated in steps that are counted over the epochs, as a single pass is
    "seer": (
        ("--config", "configs/seer.yaml", *SMALL, "--model.num_prototypes", "20"),
        ["kill@step=14", "kill@step=25"],
    ),
    # drawn negatives: Z from the first step, draws of every later one
    "instance_recognition": (
        ("--config", "configs/instance_recognition.yaml", "--model.projection", "12", "--model.negatives", "50"),
        ["kill@step=6", "kill@step=25"],
    ),
    # one epoch of warm-up, then clusters and a fresh optimizer: kills before, in the first clustering, and after
    "local_aggregation": (
        (
            *("--config", "configs/local_aggregation.yaml", "--model.projection", "12", "--model.warmup_epochs", "1"),
            *("--model.num_clusters", "40", "--model.num_neighbors", "50"),
        ),
        ["kill@step=6", "kill@cluster=1", "kill@cluster=3", "kill@step=25"],
    ),
    # four batches in one
    "rotation_prediction": (
        ("--config", "configs/rotation_prediction.yaml", "--data.image_size", "16"),
        ["kill@step=15"],
    ),
    # a network that follows another one, its running statistics too
    "byol": (
        ("--config", "configs/byol.yaml", *SMALL, "--model.predictor_hidden", "[24]"),
        ["kill@step=6", "kill@step=25"],
    ),
    "moclr": (("--config", "configs/moclr.yaml", *SMALL), ["kill@step=15"]),
    "simclr": (("--config", "configs/simclr.yaml", *SMALL), ["kill@step=15"]),
    "supervised": (
        ("--config", "configs/supervised.yaml", "--data.image_size", "16", "--model.label_noise", "0.5"),
        ["kill@step=15"],
    ),
    # labels from a file, that are in the checkpoint too
    "clusterfit": (("--config", "configs/clusterfit/3_fit.yaml", "--data.image_size", "16"), ["kill@step=15"]),
    # teachers that are in no checkpoint of the student
    "soft_distillation": (
        ("--config", "configs/clusterfit/3_distill.yaml", "--data.image_size", "16"),
        ["kill@step=15"],
    ),
    "distill": (("--config", "configs/divide_contrast/4_distill.yaml", *SMALL), ["kill@step=15"]),
    "deepcluster_v2": (
        ("--config", "configs/deepcluster_v2.yaml", *SMALL, "--model.num_clusters", "12"),
        ["kill@cluster=2", "kill@step=6", "kill@cluster=5", "kill@step=25"],
    ),
}
IN_STEPS = ("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "14")
RHYTHM = {"seer": IN_STEPS}
CASES = [(name, fault) for name, (_, faults) in METHODS.items() for fault in faults]


@pytest.fixture(scope="module")
def what(tmp_path_factory):
    """Options of a run of a method, with files of earlier stages where it reads any."""
    files = {"distill": files_to_distill, "clusterfit": clusters_to_fit, "soft_distillation": classes_to_learn}
    made = {}

    def options(method):
        if method not in made:
            read = files[method](tmp_path_factory.mktemp(method)) if method in files else ()
            made[method] = (*METHODS[method][0], *read)
        return made[method]

    return options


def files_to_distill(folder):
    """A base, two experts and clusters of the digits, by the options that name them."""
    data, paths = Digits(image_size=16), [folder / f"{name}.ckpt" for name in ("base", "first", "second")]
    torch.manual_seed(0)
    for path in paths:
        save(MoCLR(ResNet18(4), hidden=(24,), projection=12, preprocessing=data.preprocessing), path)
    base, *experts = map(str, paths)
    return ("--model.base", base, "--model.experts", f"[{','.join(experts)}]", "--model.clusters", edge(folder, 2))


def clusters_to_fit(folder):
    """Clusters of the digits, by the options that name them."""
    return ("--model.clusters", edge(folder, 12), "--model.num_clusters", "12")


def classes_to_learn(folder):
    """A teacher of four classes."""
    data = Digits(image_size=16)
    torch.manual_seed(0)
    save(
        RotationPrediction(ResNet18(4), preprocessing=data.preprocessing),
        folder / "teacher.ckpt",
    )
    return ("--model.teacher", str(folder / "teacher.ckpt"))


def save(teacher, path):
    checkpoint = {"state_dict": teacher.state_dict(), "global_step": 1, "epoch": 0}
    teacher.on_save_checkpoint(checkpoint)
    DurableCheckpointIO().save_checkpoint(checkpoint, path)


def edge(folder, k):
    """K clusters of the digits."""
    data = Digits(image_size=16)
    labels = torch.arange(data.num_samples) % k
    clustering = Clustering(labels, torch.zeros(len(labels)), torch.zeros(k, 4), labels.bincount())
    clustering.save(folder / "clusters.safetensors", {"data": data.fingerprint})
    return str(folder / "clusters.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(runs, what):
    """The whole run of a method, made when it is first asked for."""
    made = {}

    def run(method):
        if method not in made:
            made[method] = f"whole-{method}"
            done = runs.fit(made[method], what=what(method), extra=RHYTHM.get(method, ()))
            assert done.returncode == 0, done.stderr
        return made[method]

    return run


@pytest.mark.parametrize(("method", "fault"), CASES)
def test_a_killed_run_equals_one_that_was_never_killed(runs, uninterrupted, what, method, fault):
    whole = uninterrupted(method)
    name = f"{method}-{fault}".replace("@", "-").replace("=", "-")
    assert runs.fit(name, fault, what=what(method), extra=RHYTHM.get(method, ())).returncode == -9
    finished = runs.fit(name, what=what(method), extra=RHYTHM.get(method, ()))
    assert finished.returncode == 0, finished.stderr
    assert runs.steps(name) == runs.steps(whole)
    assert not differences(runs.checkpoint(name), runs.checkpoint(whole))
    assert runs.rows(name) == runs.rows(whole)
