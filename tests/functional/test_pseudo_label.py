"""pseudo_label_loss against a slow loop, hand-worked cases and its promises about unlabelled rows."""

import math

import pytest
import torch

from ssl_lightning.functional import pseudo_label_loss


def slow(logits, labels, temperature):
    heads = []
    for h, head in enumerate(logits):
        losses = []
        for row, label in zip(head.double(), labels[:, h], strict=True):
            if label >= 0:
                scaled = row / temperature
                losses.append(scaled.exp().sum().log() - scaled[label])
        heads.append(torch.stack(losses).mean() if losses else torch.zeros(()).double())
    return torch.stack(heads).mean()


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_value_and_gradient_equal_a_loop_in_float64(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(8, k, generator=generator, requires_grad=True) for k in (5, 7)]
    labels = torch.stack([torch.randint(-1, k, (8,), generator=generator) for k in (5, 7)], dim=1)
    loss = pseudo_label_loss(logits, labels, temperature)
    reference = slow(logits, labels, temperature)
    assert torch.allclose(loss.double(), reference, atol=1e-5)
    for found, expected in zip(torch.autograd.grad(loss, logits), torch.autograd.grad(reference, logits), strict=True):
        assert torch.allclose(found, expected.float(), atol=1e-5)


def test_equal_logits_cost_the_logarithm_of_the_number_of_clusters():
    loss = pseudo_label_loss([torch.zeros(4, 10)], torch.tensor([[0], [3], [9], [1]]))
    assert float(loss) == pytest.approx(math.log(10), abs=1e-6)


def test_unlabelled_rows_contribute_exactly_nothing():
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([[0], [-1], [2], [-1]])
    loss = pseudo_label_loss([logits], labels)
    alone = pseudo_label_loss([logits[[0, 2]]], labels[[0, 2]])
    assert torch.equal(loss, alone)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[[1, 3]].abs().max() == 0


def test_a_batch_without_labels_costs_0_and_not_nan():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = pseudo_label_loss([logits], torch.full((4, 1), -1))
    assert torch.equal(loss, torch.zeros(()))
    assert torch.autograd.grad(loss, logits)[0].abs().max() == 0


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(64, 50) * 8
    labels = torch.randint(50, (64, 1))
    assert pseudo_label_loss([logits.bfloat16()], labels).dtype == torch.float32
    assert torch.allclose(
        pseudo_label_loss([logits.bfloat16()], labels), slow([logits.bfloat16()], labels, 1.0).float()
    )


def test_wrong_numbers_of_heads_and_temperatures_are_rejected():
    with pytest.raises(ValueError, match="2 heads"):
        pseudo_label_loss([torch.zeros(2, 3)] * 2, torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="temperature"):
        pseudo_label_loss([torch.zeros(2, 3)], torch.zeros(2, 1, dtype=torch.int64), 0.0)
