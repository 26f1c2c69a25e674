"""CountFLOPs: against a closed form and torch's own counter, and what it leaves as it was."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from ssl_lightning.callbacks import Compile, CountFLOPs
from ssl_lightning.data import Digits, View
from ssl_lightning.methods import SimCLR
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.runs import MetricsTable
from ssl_lightning.runs.metrics import read_rows
from tests.methods.quiet import QUIET

B, F, H, C = 4, 5, 7, 3


class TwoLayers(pl.LightningModule):
    """Whose products can be counted by hand."""

    def __init__(self, fails_at=-1):
        super().__init__()
        self.layers, self.fails_at = torch.nn.Sequential(torch.nn.Linear(F, H), torch.nn.Linear(H, C)), fails_at

    def training_step(self, batch, batch_idx):
        if batch_idx == self.fails_at:
            raise RuntimeError("on purpose")
        return self.layers(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(model, tmp_path, *callbacks, data=None, **options):
    """Its rows of flops by step."""
    table = MetricsTable(tmp_path / "metrics.csv")
    settings = QUIET | {"logger": table, "max_epochs": 1, "log_every_n_steps": 2} | options
    trainer = pl.Trainer(**settings, callbacks=[*callbacks, CountFLOPs()])
    if data is None:
        trainer.fit(model, DataLoader(TensorDataset(torch.randn(6 * B, F)), batch_size=B))
    else:
        trainer.fit(model, datamodule=data)
    rows = read_rows(tmp_path / "metrics.csv") if (tmp_path / "metrics.csv").exists() else []
    return {int(row["step"]): float(row["train/flops"]) for row in rows if row.get("train/flops")}


@pytest.mark.parametrize("accumulated", [1, 2])
def test_products_of_two_layers_are_those_of_the_closed_form(tmp_path, accumulated):
    forward, backward = F * H + H * C, F * H + 2 * H * C  # nothing is asked of the images' own gradient
    step = accumulated * 2 * B * (forward + backward)
    found = train(TwoLayers(), tmp_path, accumulate_grad_batches=accumulated)
    assert found == {number: number * step for number in [1, *range(2, 6 // accumulated + 1, 2)]}


def digits():
    return Digits(batch_size=64, views=[View(count=2, scale=(0.5, 1.0))], image_size=8)


def test_a_method_costs_what_torchs_own_counter_reports_and_learns_what_it_did(tmp_path):
    losses = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append((float(outputs["loss"].detach()), batch))

    def fit(*callbacks):
        pl.seed_everything(0, verbose=False)
        model = SimCLR(ResNet18(8), hidden=(16,), projection=8, preprocessing=Preprocessing(8))
        return model, train(model, tmp_path, Note(), *callbacks, data=digits(), max_steps=4)

    model, found = fit()
    with FlopCounterMode(display=False) as counter:
        model.training_step(losses[0][1], 0)["loss"].backward()
    assert found == {step: step * counter.get_total_flops() for step in (1, 2, 4)}
    counted, losses = losses, []
    pl.seed_everything(0, verbose=False)
    plain = SimCLR(ResNet18(8), hidden=(16,), projection=8, preprocessing=Preprocessing(8))
    pl.Trainer(**QUIET, max_steps=4, callbacks=[Note()]).fit(plain, datamodule=digits())
    assert [loss for loss, _ in counted] == [loss for loss, _ in losses]


def test_a_step_that_fails_ends_the_count(tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(TwoLayers(fails_at=0), tmp_path)
    assert _get_current_dispatch_mode() is None


def test_nothing_is_said_of_a_compiled_step(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda call, **options: call)  # marked as compiled all the same
    assert train(TwoLayers(), tmp_path, Compile()) == {}


def test_a_resumed_run_goes_on_with_the_count_of_its_first_step(tmp_path):
    first = CountFLOPs()
    first.load_state_dict({"of_a_batch": 7})
    table = MetricsTable(tmp_path / "metrics.csv")
    settings = QUIET | {"logger": table, "max_epochs": 1, "log_every_n_steps": 2}
    pl.Trainer(**settings, callbacks=[first]).fit(TwoLayers(), DataLoader(TensorDataset(torch.randn(2 * B, F)), B))
    assert [float(row["train/flops"]) for row in read_rows(tmp_path / "metrics.csv")] == [7, 2 * 7]
    assert first.state_dict() == {"of_a_batch": 7}
