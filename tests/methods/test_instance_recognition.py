"""InstanceRecognition: its memory row by row, both losses, and what is rejected."""

import math

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.data import Digits, View
from ssl_lightning.functional import instance_loss
from ssl_lightning.methods import InstanceRecognition
from ssl_lightning.models import Preprocessing, ResNet18
from tests.methods.quiet import QUIET


class Spy(pl.Callback):
    """Keeps memory and embeddings around every step."""

    def __init__(self):
        self.before, self.after, self.steps = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before.append(pl_module.bank.rows.clone())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after.append(pl_module.bank.rows.clone())
        self.steps.append((batch.index, outputs["embeddings"], float(outputs["loss"].detach())))


def fit(epochs=1, **options):
    pl.seed_everything(0, verbose=False)
    method = InstanceRecognition(ResNet18(8), projection=16, preprocessing=Preprocessing(16), **options)
    spy = Spy()
    trainer = pl.Trainer(
        **QUIET,
        max_epochs=epochs,
        callbacks=[spy],
    )
    trainer.fit(method, Digits(batch_size=256, views=[View(scale=(0.5, 1.0), horizontal_flip=0.0)], image_size=16))
    return method, spy


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_only_rows_of_the_batch_change_and_stay_on_the_sphere(momentum):
    method, spy = fit(momentum=momentum)
    for before, after, (index, z, loss) in zip(spy.before, spy.after, spy.steps, strict=True):
        expected = before.clone()
        expected[index] = F.normalize(momentum * before[index] + (1 - momentum) * z, dim=1)
        assert torch.allclose(after, expected, atol=1e-6)
        assert loss == pytest.approx(float(instance_loss(z, index, before, method.temperature)), abs=1e-5)
    assert torch.allclose(method.bank.rows.norm(dim=1), torch.ones(len(method.bank.rows)), atol=1e-5)
    assert method.chance_loss == pytest.approx(math.log(len(method.bank.rows)))


def test_the_estimate_samples_anew_in_each_step_and_takes_z_once():
    method, spy = fit(epochs=2, negatives=64)
    losses = [loss for *_, loss in spy.steps]
    n = len(method.bank.rows)
    assert float(method.partition) == pytest.approx(n * math.exp(1 / (2 * 16 * 0.1**2)), rel=0.5)
    assert all(math.isfinite(loss) for loss in losses)
    again, _ = fit(epochs=2, negatives=64)
    assert torch.equal(method.bank.rows, again.bank.rows)


def test_the_projector_is_a_layer_to_evaluate():
    method = InstanceRecognition(ResNet18(8), projection=16, preprocessing=Preprocessing(16)).eval()
    images = torch.randn(3, 3, 16, 16)
    assert method.embed(images).shape == (3, 64)
    assert torch.allclose(method.embed(images, "projector").norm(dim=1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"negatives": -1}, {"projection": 0}])
def test_numbers_out_of_range_are_rejected(options):
    with pytest.raises(ValueError, match="expected a positive temperature"):
        InstanceRecognition(ResNet18(8), **options)
