"""What loggers that outlive a loop are told and given; the others are left alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from ssl_lightning.runs import ExternalLoggers, RunDirectory, WandbRun
from ssl_lightning.runs.external_loggers import MOST_IMAGES


class Heard(WandbRun):
    """A external logger that notes what it hears, and sends nothing."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def settle(self, *who):
        self.heard.append(("settle", *who))

    def log_hyperparams(self, params):
        self.heard.append(("inputs", params))

    def log_image(self, name, path):
        self.heard.append(("image", name, path))

    def log_files(self, kind, paths, facts):
        self.heard.append(("files", kind, paths, facts))

    def log_array(self, kind, array, facts):
        self.heard.append(("array", kind, array.tolist(), facts))

    def close(self, succeeded):
        self.heard.append(("close", succeeded))


@pytest.fixture
def heard(tmp_path):
    external_logger = Heard()
    return external_logger.heard, ExternalLoggers([CSVLogger(tmp_path), external_logger], RunDirectory(tmp_path, "r"))


def test_a_external_logger_is_reported_where_and_who_the_run_is_and_how_it_ends(heard, tmp_path):
    said, external_loggers = heard
    external_loggers.introduce("ab12", {"model.init_args.width": 8})
    with external_loggers.until_the_end():
        pass
    with pytest.raises(KeyError), external_loggers.until_the_end():
        raise KeyError
    settled, inputs = ("settle", tmp_path / "r", "r", "ab12"), ("inputs", {"model.init_args.width": 8})
    assert said == [settled, inputs, ("close", True), ("close", False)]


@pytest.mark.parametrize("labels", [None, torch.tensor([[1], [0]])])
def test_a_external_logger_is_given_the_first_images_the_checkpoint_and_the_clusters(heard, labels):
    said, external_loggers = heard
    images = [Path(f"{number}.png") for number in range(MOST_IMAGES + 3)]
    files, facts = [Path("last.ckpt"), Path("last.json")], {"step": 7}
    external_loggers.hand_out(images, files, labels, facts)
    shown = [("image", f"report/{number}", Path(f"{number}.png")) for number in range(MOST_IMAGES)]
    array = [] if labels is None else [("array", "assignments", np.asarray([[1], [0]]).tolist(), facts)]
    assert said == [*shown, ("files", "checkpoint", files, facts), *array]
