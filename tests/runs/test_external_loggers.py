"""Calls and files that external loggers receive; other loggers are left alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from ssl_lightning.runs import ExternalLoggers, RunDirectory, WandbRun
from ssl_lightning.runs.external_loggers import MOST_IMAGES


class Recorder(WandbRun):
    """An external logger that records its calls, and sends nothing."""

    def __init__(self):
        super().__init__()
        self.recorded = []

    def settle(self, *names):
        self.recorded.append(("settle", *names))

    def log_hyperparams(self, params):
        self.recorded.append(("inputs", params))

    def log_image(self, name, path):
        self.recorded.append(("image", name, path))

    def log_files(self, kind, paths, facts):
        self.recorded.append(("files", kind, paths, facts))

    def log_array(self, kind, array, facts):
        self.recorded.append(("array", kind, array.tolist(), facts))

    def close(self, succeeded):
        self.recorded.append(("close", succeeded))


@pytest.fixture
def recorded(tmp_path):
    logger = Recorder()
    return logger.recorded, ExternalLoggers([CSVLogger(tmp_path), logger], RunDirectory(tmp_path, "r"))


def test_an_external_logger_receives_the_runs_folder_name_settings_and_outcome(recorded, tmp_path):
    calls, external_loggers = recorded
    external_loggers.introduce("ab12", {"model.init_args.width": 8})
    with external_loggers.until_the_end():
        pass
    with pytest.raises(KeyError), external_loggers.until_the_end():
        raise KeyError
    settled, inputs = ("settle", tmp_path / "r", "r", "ab12"), ("inputs", {"model.init_args.width": 8})
    assert calls == [settled, inputs, ("close", True), ("close", False)]


@pytest.mark.parametrize("labels", [None, torch.tensor([[1], [0]])])
def test_an_external_logger_receives_the_first_images_the_checkpoint_and_the_clusters(recorded, labels):
    calls, external_loggers = recorded
    images = [Path(f"{number}.png") for number in range(MOST_IMAGES + 3)]
    files, facts = [Path("last.ckpt"), Path("last.json")], {"step": 7}
    external_loggers.hand_out(images, files, labels, facts)
    shown = [("image", f"report/{number}", Path(f"{number}.png")) for number in range(MOST_IMAGES)]
    array = [] if labels is None else [("array", "assignments", np.asarray([[1], [0]]).tolist(), facts)]
    assert calls == [*shown, ("files", "checkpoint", files, facts), *array]
