"""soft_target_loss against a slow loop, a hand-worked case and what the temperature promises."""

import math

import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.functional import soft_target_loss


def slow(logits, targets, temperature):
    rows = []
    for row, target in zip(logits.double() / temperature, targets.double() / temperature, strict=True):
        p, q = (values.exp() / values.exp().sum() for values in (target, row))
        rows.append((p * (p / q).log()).sum())
    return temperature**2 * torch.stack(rows).mean()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_value_and_gradient_equal_a_loop_in_float64(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator, requires_grad=True)
    targets = torch.randn(6, 5, generator=generator) * 3
    loss, expected = soft_target_loss(logits, targets, temperature), slow(logits, targets, temperature)
    assert torch.allclose(loss.double(), expected, atol=1e-5)
    (found,), (by_hand,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    assert torch.allclose(found, by_hand.float(), atol=1e-5)


def test_two_classes_by_hand():
    logits, targets = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(soft_target_loss(logits, targets, 1.0)) == pytest.approx(expected, abs=1e-6)


def test_it_is_0_where_the_teacher_is_met_whatever_is_added_to_all_logits():
    targets = torch.randn(4, 7)
    assert float(soft_target_loss(targets + 5, targets, 2.0)) == pytest.approx(0, abs=1e-5)


def test_gradients_are_those_of_the_cross_entropy_to_soft_targets():
    logits, targets = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7)
    cross_entropy = 9 * F.cross_entropy(logits / 3, (targets / 3).softmax(1))
    (found,) = torch.autograd.grad(soft_target_loss(logits, targets, 3.0), logits)
    (expected,) = torch.autograd.grad(cross_entropy, logits)
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_teacher_gets_no_gradient():
    logits, targets = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7, requires_grad=True)
    soft_target_loss(logits, targets, 2.0).backward()
    assert targets.grad is None


def test_certain_half_precision_teachers_give_finite_float32():
    targets = torch.tensor([[300.0, -300.0, 0.0]]).bfloat16()
    loss = soft_target_loss(-targets, targets, 1.0)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_a_temperature_of_0_is_rejected():
    with pytest.raises(ValueError, match="expected a positive number"):
        soft_target_loss(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)
