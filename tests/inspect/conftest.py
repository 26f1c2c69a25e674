"""A small run of DeepCluster on the digits, through the command line."""

import os
import sys
from pathlib import Path

import pytest

from ssl_lightning.entry import run as command

ROOT = Path(__file__).parents[2]
SMALL = [
    *("--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8"),
    *("--data.batch_size", "64", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "1"),
    *("--trainer.check_val_every_n_epoch", "1", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Folder of a run of a configuration with options, trained on its first use."""
    folder, made = tmp_path_factory.mktemp("inspected"), {}

    def fit(name, config, *options):
        if name not in made:
            before, argv = Path.cwd(), sys.argv
            os.chdir(ROOT)
            sys.argv = ["ssl-lightning"]
            try:
                names = ["--run.dir", str(folder), "--run.name", name]
                assert command(["fit", "--config", config, *SMALL, *names, *options]) == 0
            finally:
                os.chdir(before)
                sys.argv = argv
            made[name] = folder / name
        return made[name]

    return fit


@pytest.fixture
def deepcluster(trained):
    return trained("deepcluster", "deepcluster", "--model.num_clusters", "12")


@pytest.fixture
def swav(trained):
    head = ["--model.num_prototypes", "10", "--model.hidden", "[32]", "--model.projection", "16"]
    return trained("swav", "swav", *head)


@pytest.fixture
def simclr(trained):
    return trained("simclr", "simclr", "--model.hidden", "[32]", "--model.projection", "16")
