"""Supervised: labels that are wrong once and for all, and data that it cannot learn from."""

import math

import lightning.pytorch as pl
import pytest
import torch
from scipy import stats

from ssl_lightning.data import Digits, View
from ssl_lightning.methods import Supervised
from ssl_lightning.methods.supervised import noisy_labels
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.types import Batch
from tests.methods.quiet import QUIET

ROWS = torch.arange(20_000)
FIVE = ROWS % 5


class Spy(pl.Callback):
    """Keeps what every step saw and told."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append((batch.index, batch.label, outputs["scores"], outputs["loss"].item()))


class Unsorted(Digits):
    """Digits whose labels nobody knows."""

    @property
    def labels(self):
        return torch.full((self.num_samples,), -1)


def fit(data=None, seed=0, **options):
    pl.seed_everything(0, verbose=False)
    method, spy = Supervised(backbone=ResNet18(8), preprocessing=Preprocessing(16), **options), Spy()
    trainer = pl.Trainer(
        **QUIET,
        max_epochs=1,
        limit_train_batches=2,
        callbacks=[spy],
    )
    trainer.fit(method, data or Digits(batch_size=64, views=[View(horizontal_flip=0.0)], image_size=16, seed=seed))
    return method, spy


@pytest.mark.parametrize("noise", [0.0, 0.25, 0.8, 1.0])
def test_the_share_of_right_labels_is_what_a_uniform_draw_over_all_classes_leaves(noise):
    right = (noisy_labels(FIVE, ROWS, noise, 5, seed=0) == FIVE).double().mean()
    assert float(right) == pytest.approx(1 - noise + noise / 5, abs=0.01)


def test_replaced_labels_are_uniform_and_do_not_depend_on_the_true_ones():
    noisy = noisy_labels(FIVE, ROWS, 1.0, 5, seed=3)
    table = torch.stack([torch.bincount(noisy[label == FIVE], minlength=5) for label in range(5)])
    assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3
    assert stats.chisquare(torch.bincount(noisy, minlength=5).numpy()).pvalue > 1e-3


def test_a_rows_label_is_a_function_of_seed_and_row_alone():
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    whole = noisy_labels(FIVE, ROWS, 0.5, 5, seed=1)
    assert torch.equal(noisy_labels(FIVE[order], ROWS[order], 0.5, 5, seed=1), whole[order])
    assert not torch.equal(noisy_labels(FIVE, ROWS, 0.5, 5, seed=2), whole)


def test_more_noise_keeps_what_less_noise_has_replaced():
    some, more = (noisy_labels(FIVE, ROWS, noise, 5, seed=0) for noise in (0.3, 0.6))
    wrong = some != FIVE
    assert torch.equal(some[wrong], more[wrong])


def test_a_image_without_a_label_stays_without():
    labels = torch.where(ROWS % 3 == 0, -1, FIVE)
    noisy = noisy_labels(labels, ROWS, 1.0, 5, seed=0)
    assert torch.equal(noisy == -1, labels == -1)


def test_loss_and_gradient_are_the_mean_over_labelled_rows():
    torch.manual_seed(0)
    method = Supervised(0.0, 5, ResNet18(8), preprocessing=Preprocessing(16)).eval()
    views, labels = torch.randn(6, 3, 16, 16), torch.tensor([0, -1, 4, 2, -1, 4])
    told = method.training_step(Batch(torch.arange(6), [views], labels), 0)
    log_p = method.logits(views).double().log_softmax(1)
    expected = -torch.stack([log_p[0, 0], log_p[2, 4], log_p[3, 2], log_p[5, 4]]).mean()
    assert told["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    parameters = [method.head.weight, method.backbone.body.conv1.weight]
    gradients, by_hand = torch.autograd.grad(told["loss"], parameters), torch.autograd.grad(expected, parameters)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, by_hand, strict=True))
    assert torch.allclose(told["scores"], method.logits(views), atol=1e-5)
    assert method.chance_loss == pytest.approx(math.log(5))


@pytest.mark.parametrize("seed", [0, 7])
def test_training_sees_the_noisy_labels_of_the_datas_seed(seed):
    _, spy = fit(seed=seed, label_noise=0.6)
    for index, label, scores, loss in spy.steps:
        noisy = noisy_labels(label, index, 0.6, 10, seed)
        assert not torch.equal(noisy, label)
        assert loss == pytest.approx(torch.nn.functional.cross_entropy(scores, noisy).item(), abs=1e-5)


def test_labels_beyond_the_head_are_rejected_with_the_number_to_give():
    with pytest.raises(ValueError, match=r"found the label 9 .* give --model.num_classes 10"):
        fit(num_classes=9)


def test_data_without_labels_are_rejected():
    with pytest.raises(ValueError, match="without labels"):
        fit(Unsorted(batch_size=64, image_size=16))


@pytest.mark.parametrize("options", [{"label_noise": -0.1}, {"label_noise": 1.1}, {"num_classes": 1}])
def test_numbers_out_of_range_are_rejected(options):
    with pytest.raises(ValueError, match="expected a share within"):
        Supervised(backbone=ResNet18(8), **options)
