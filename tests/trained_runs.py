"""Small runs of every method on the digits, trained through the command line on their first use."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_lightning.entry import run
from ssl_lightning.inspect import example_images

ROOT = Path(__file__).parents[1]
K = 2
HEAD = ("--model.hidden", "[16]", "--model.projection", "8")
SMALL = (
    *("--model.backbone.width", "8", "--data.image_size", "8", "--data.batch_size", "64"),
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "0"),
    *("--trainer.check_val_every_n_epoch", "1", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
)
RESNET = ("--model.backbone", "ssl_lightning.models.ResNet18")
CLUSTERS = ("--model.num_clusters", "12")
LOCAL = (*CLUSTERS, "--model.num_neighbors", "20", "--model.projection", "8")
EVALUATED = ("--trainer.limit_val_batches", "1")
METHODS = {
    "byol": (*HEAD, "--model.predictor_hidden", "[16]"),
    "deepcluster": (*CLUSTERS, *EVALUATED),
    "deepcluster_v2": (*CLUSTERS, *HEAD, "--trainer.max_epochs", "2"),
    "instance_recognition": ("--model.projection", "8"),
    "local_aggregation": (*LOCAL, "--model.warmup_epochs", "0"),
    "moclr": HEAD,
    "rotation_prediction": (),
    "seer": ("--trainer.check_val_every_n_epoch", "null", "--model.num_prototypes", "12", *HEAD),
    "simclr": (*HEAD, *EVALUATED),
    "supervised": (),
    "swav": ("--model.num_prototypes", "12", *HEAD),
}
"""Configurations of one stage, and what makes their runs small beside `SMALL`."""
STAGES = ("clusterfit", "distill", "soft_distillation")
"""Methods that learn from files of earlier stages."""
EVERY = (*METHODS, *STAGES)
STATES = {
    "first-epoch": ("--trainer.max_steps", "2", "--trainer.max_epochs", "3"),
    "two-processes": ("--trainer.devices", "2", "--trainer.strategy", "ddp"),
}
"""Other states of a run of any method, and their options."""
WARM_UP = "warm-up"
"""A run of Local Aggregation that is in its warm-up."""


class TrainedRuns:
    """Runs in one folder.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path:
        """The folder of a run: a method of `EVERY`, one with a state (`byol-first-epoch`), `WARM_UP`, "unlabeled"."""
        if not (self.folder / name / "done.json").is_file():
            self._train(name)
        return self.folder / name

    def checkpoint(self, name: str) -> str:
        """The last checkpoint of a run."""
        return str(self(name) / "checkpoints" / "last.ckpt")

    def _train(self, name: str) -> None:
        state = next((state for state in STATES if name.endswith(f"-{state}")), "")
        method, options = name.removesuffix(f"-{state}"), STATES.get(state, ())
        if method in METHODS:
            self._fit(name, method, *METHODS[method], *options)
        elif method in STAGES:
            getattr(self, f"_{method}")(name, *options)
        elif name.startswith("expert-"):
            self._expert(int(name.removeprefix("expert-")))
        else:
            getattr(self, f"_{name.replace('-', '_')}")()

    def _clusterfit(self, name: str, *options: str) -> None:
        edge = self._edge("simclr", "12")
        self._fit(name, "clusterfit/3_fit", "--model.clusters", edge, *CLUSTERS, *options)

    def _soft_distillation(self, name: str, *options: str) -> None:
        teacher = self.checkpoint("rotation_prediction")
        self._fit(name, "clusterfit/3_distill", "--model.teacher", teacher, *options)

    def _distill(self, name: str, *options: str) -> None:
        """Divide and Contrast: its base, clusters, experts and student."""
        self("base")
        edge = self._edge("base", str(K))
        for k in range(K):
            self(f"expert-{k}")
        experts = ",".join(str(self.folder / f"expert-{k}" / "checkpoints" / "last.ckpt") for k in range(K))
        files = ("--model.base", self.checkpoint("base"), "--model.experts", f"[{experts}]", "--model.clusters", edge)
        self._fit(name, "divide_contrast/4_distill", *HEAD, *files, *options)

    def _expert(self, k: int) -> None:
        subset = ("--data.subset.path", str(self.folder / "base-clusters.safetensors"), "--data.subset.value", str(k))
        self._fit(f"expert-{k}", "divide_contrast/3_expert", *HEAD, *subset)

    def _warm_up(self) -> None:
        options = ("--model.warmup_epochs", "3", "--trainer.max_epochs", "1")
        self._fit(WARM_UP, "local_aggregation", *LOCAL, *options)

    def _unlabeled(self) -> None:
        images = example_images(self.folder / "images", 200)
        self._fit("unlabeled", "swav", *METHODS["swav"], "--config", "data/folder", "--data.path", images)

    def _base(self) -> None:
        self._fit("base", "divide_contrast/1_base", *HEAD)

    def _edge(self, name: str, k: str) -> str:
        """Clusters of the features of a run, as a file of the second stage."""
        path = self.folder / f"{name}-clusters"
        options = ["--ckpt_path", self.checkpoint(name), "--trainer.callbacks.path", str(path)]
        options += ["--trainer.callbacks.num_clusters", k, "--trainer.callbacks.transform", "null"]
        options += ["--run.dir", str(self.folder), "--trainer.accelerator", "cpu", "--run.name", f"{name}-predict"]
        with at_the_root():
            assert run(["predict", "--config", "clusters", *options, "--trainer.enable_progress_bar", "false"]) == 0
        return f"{path}.safetensors"

    def _fit(self, name: str, config: str, *options: str) -> None:
        command = self._command(name, config, *options)
        if "--trainer.devices" in options:
            self._in_a_process(command)
            return
        with at_the_root():
            assert run(command) == 0

    def _in_a_process(self, command: list[str]) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        program = [sys.executable, "-m", "ssl_lightning", *command]
        done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    def _command(self, name: str, config: str, *options: str) -> list[str]:
        where = ["--run.dir", str(self.folder), "--run.name", name]
        return ["fit", "--config", config, *RESNET, *SMALL, *options, *where]


@contextmanager
def at_the_root() -> Iterator[None]:
    """A context in the folder of the repository, as a user has it."""
    before, argv = Path.cwd(), sys.argv
    os.chdir(ROOT)
    sys.argv = ["ssl-lightning"]
    try:
        yield
    finally:
        os.chdir(before)
        sys.argv = argv
