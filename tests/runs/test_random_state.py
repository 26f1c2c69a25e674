"""The global random state of a checkpoint: random numbers after a resume are those of an uninterrupted run."""

import io
import random

import lightning.pytorch as pl
import numpy as np
import torch

from ssl_lightning.runs import Checkpointing
from ssl_lightning.runs.checkpointing import _random_state, _set_random_state


def samples():
    numpy = np.random.rand(), np.random.randn()  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), random.gauss(0, 1), *numpy, torch.rand(1)]


def test_every_global_generator_goes_on_where_it_was_after_a_read_that_runs_no_code():
    random.gauss(0, 1)  # it computes two at a time and keeps one
    file = io.BytesIO()
    torch.save(_random_state(), file)
    expected = samples()
    samples()
    file.seek(0)
    _set_random_state(torch.load(file, weights_only=True))
    assert samples() == expected


def test_a_resume_on_another_number_of_processes_reports_in_one_line_what_it_changes(tmp_path, caplog):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    caplog.clear()
    for processes, lines in ((1, 0), (2, 1)):
        checkpoint = {"random_state": [_random_state()] * processes, "optimizer_states": [], "lr_schedulers": []}
        Checkpointing(tmp_path).on_load_checkpoint(trainer, pl.LightningModule(), checkpoint)
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == lines
    assert "of 2 processes, resumed on 1" in messages[0]
    assert "batch normalization" in messages[0]
