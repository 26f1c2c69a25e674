"""Progress of a run: the time left, the plain lines and the bar."""

import math
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from ssl_lightning.callbacks import ImagesProgressBar, ProgressLines, TimeLeft
from ssl_lightning.callbacks import progress as module
from ssl_lightning.callbacks.progress import Clock

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]


def test_the_time_left_counts_steps_and_what_precedes_each_epoch():
    # 3 epochs of 10 steps of 2 s; 30 s of clustering before each, and 10 s of evaluation after each
    clock, now = Clock(0.0, step=0, last_step=30.0, steps_per_epoch=10), 0.0
    assert clock.seconds_left() is None
    for epoch in range(3):
        now += 30 if epoch == 0 else 40
        clock.begin_epoch(now)
        for step in range(10):
            now += 2
            clock.end_batch(now, 10 * epoch + step + 1)
            steps_left, later = 30 - clock._step, 2 - epoch
            before = (30 + 40 * epoch) / (epoch + 1)
            assert clock.seconds_left() == pytest.approx(2 * steps_left + later * before)
    assert clock.seconds_left() == 0


def test_accumulated_batches_of_a_step_belong_to_it():
    clock = Clock(0.0, step=0, last_step=10.0, steps_per_epoch=5)
    clock.begin_epoch(0.0)
    for batch in range(1, 5):
        clock.end_batch(float(batch), batch // 4)
    assert clock.seconds_left() == pytest.approx(9 * 4)


def test_a_resumed_run_counts_its_own_steps_alone():
    clock = Clock(100.0, step=90, last_step=100.0, steps_per_epoch=100)
    clock.begin_epoch(105.0)
    clock.end_batch(108.0, 91)
    assert clock.steps == 1
    assert clock.seconds_left() == pytest.approx(9 * 3)


def test_a_run_without_an_end_has_no_time_left():
    clock = Clock(0.0, step=0, last_step=math.inf, steps_per_epoch=10)
    clock.begin_epoch(0.0)
    clock.end_batch(1.0, 1)
    assert clock.seconds_left() is None


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        return None

    def predict_step(self, batch, batch_idx):
        return self.layer(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _loader(batches):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(batches, 1)), batch_size=1)


def _trainer(*callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(callbacks=list(callbacks), **quiet, num_sanity_val_steps=0, **options)


def test_the_lines_name_epoch_step_and_time_left(caplog):
    time_left = TimeLeft()
    trainer = _trainer(time_left, ProgressLines(time_left, seconds=0.0), max_epochs=2)
    with caplog.at_level("INFO", "ssl_lightning"):
        trainer.fit(Model(), _loader(3), _loader(2))
    lines = [line for line in caplog.messages if line.startswith("epoch ")]
    assert [line.split(",")[:2] for line in lines] == [
        [f"epoch {epoch}/2", f" step {step}"] for epoch, step in [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]
    ]
    assert all(line.endswith(" left") for line in lines)
    assert "evaluating: batch 2 of 2" in caplog.messages


def test_predict_logs_lines_too(caplog):
    trainer = _trainer(ProgressLines(TimeLeft(), seconds=0.0))
    with caplog.at_level("INFO", "ssl_lightning"):
        trainer.predict(Model(), _loader(3))
    assert caplog.messages[-1] == "computing features: batch 3 of 3"


def test_between_lines_passes_the_interval(caplog):
    time_left = TimeLeft()
    trainer = _trainer(time_left, ProgressLines(time_left, seconds=3600.0), max_epochs=2)
    with caplog.at_level("INFO", "ssl_lightning"):
        trainer.fit(Model(), _loader(3), _loader(1))
    assert not [record for record in caplog.records if record.name.startswith("ssl_lightning")]


def test_only_the_first_process_logs_lines():
    lines = ProgressLines(TimeLeft(), seconds=0.0)
    trainer = SimpleNamespace(is_global_zero=False)
    lines.setup(trainer, None, "fit")
    assert lines.is_disabled
    assert not lines._is_due()


def test_a_long_run_logs_its_time_once(caplog, monkeypatch):
    time_left = TimeLeft()
    monkeypatch.setattr(time_left, "AFTER", 2)
    monkeypatch.setattr(module, "SECONDS", 0.0)
    trainer = _trainer(time_left, max_epochs=3, enable_progress_bar=False)
    with caplog.at_level("INFO", "ssl_lightning"):
        trainer.fit(Model(), _loader(3), _loader(1))
    assert len([line for line in caplog.messages if line.endswith("left after the first 2 steps")]) == 1


def test_the_bar_names_the_epoch_and_the_time_left(capsys):
    time_left = TimeLeft()
    bar = ImagesProgressBar(time_left)
    bar.SECONDS = 0
    _trainer(time_left, bar, max_epochs=2).fit(Model(), _loader(3), _loader(1))
    output = capsys.readouterr().out
    assert "epoch 2/2" in output
    assert "left=" in output
