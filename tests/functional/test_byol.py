"""byol_loss: squared distances of unit vectors as a loop in float64, its closed forms, and its gradients."""

import pytest
import torch

from ssl_lightning.functional import byol_loss


def embeddings(b=6, d=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(b, d, generator=generator).requires_grad_() for _ in range(4)]


def loop(p1, p2, k1, k2):
    total = 0.0
    for predictions, targets in ((p1, k2), (p2, k1)):
        for p, k in zip(predictions.double(), targets.double(), strict=True):
            total = total + (p / p.norm() - k / k.norm()).square().sum() / len(p1)
    return total


def test_it_is_the_squared_distance_of_unit_vectors_in_value_and_gradient():
    p1, p2, k1, k2 = embeddings()
    loss, expected = byol_loss(p1, p2, k1, k2), loop(p1, p2, k1.detach(), k2.detach())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, (p1, p2)), torch.autograd.grad(expected, (p1, p2)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("factor", "loss"), [(2.0, 0.0), (-0.5, 8.0)])
def test_parallel_predictions_cost_nothing_and_opposite_ones_4_a_direction(factor, loss):
    k1, k2 = (rows.detach() for rows in embeddings()[:2])
    assert float(byol_loss(factor * k2, factor * k1, k1, k2)) == pytest.approx(loss, abs=1e-5)


def test_targets_get_no_gradient():
    p1, p2, k1, k2 = embeddings()
    byol_loss(p1, p2, k1, k2).backward()
    assert k1.grad is None
    assert k2.grad is None


def test_half_precision_is_summed_in_float32_also_under_autocast():
    halves = [rows.detach().bfloat16() for rows in embeddings()]
    with torch.autocast("cpu", torch.bfloat16):
        loss = byol_loss(*halves)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(loop(*halves)), abs=1e-5)
