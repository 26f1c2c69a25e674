"""moclr_loss: equation 1 in both directions as a loop in float64, closed forms, and which inputs get a gradient.

Two processes: tests/functional/test_nt_xent.py.
"""

import math

import pytest
import torch

from ssl_lightning.functional import moclr_loss


def embeddings(b=6, d=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(b, d, generator=generator).requires_grad_() for _ in range(4)]


def one_direction(q, k, temperature):
    """Equation 1, image by image."""
    q, k = ([row / row.norm() for row in rows.double()] for rows in (q, k))
    total = 0.0
    for i in range(len(q)):
        own = ((q[i] * k[i]).sum() / temperature).exp()
        others = sum(((q[i] * k[j]).sum() / temperature).exp() for j in range(len(k)) if j != i)
        total = total - (own / (own + others)).log() / len(q)
    return total


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_it_is_the_sum_of_both_directions_in_value_and_gradient(temperature):
    q1, q2, k1, k2 = embeddings()
    loss = moclr_loss(q1, q2, k1, k2, temperature)
    expected = one_direction(q1, k2.detach(), temperature) + one_direction(q2, k1.detach(), temperature)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, (q1, q2)), torch.autograd.grad(expected, (q1, q2)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_average_gets_no_gradient():
    q1, q2, k1, k2 = embeddings()
    moclr_loss(q1, q2, k1, k2, 0.2).backward()
    assert k1.grad is None
    assert k2.grad is None
    assert q1.grad is not None
    assert q2.grad is not None


def test_embeddings_that_are_all_equal_cost_the_logarithm_of_the_batch_in_each_direction():
    same = torch.full((64, 3), 0.7)
    assert float(moclr_loss(same, same, same, same, 0.2)) == pytest.approx(2 * 4.1589, abs=1e-4)


def test_perfect_pairs_that_are_orthogonal_to_all_others_by_hand():
    z = torch.eye(64)
    each = math.log(1 + 63 * math.exp(-5))
    assert each == pytest.approx(0.3538, abs=1e-4)
    assert float(moclr_loss(z, 2 * z, z, 3 * z, 0.2)) == pytest.approx(2 * each, abs=1e-5)


def test_other_online_embeddings_are_no_negatives():
    q1, q2, k1, k2 = (rows.detach() for rows in embeddings())
    changed = q1.clone()
    changed[1:] = torch.randn(5, 4)
    rows = [torch.autograd.grad(moclr_loss(q.requires_grad_(), q2, k1, k2, 0.2), q)[0][0] for q in (q1, changed)]
    assert torch.allclose(*rows, atol=1e-6)


def test_half_precision_is_summed_in_float32_also_under_autocast():
    halves = [rows.detach().bfloat16() for rows in embeddings()]
    with torch.autocast("cpu", torch.bfloat16):
        loss = moclr_loss(*halves, 0.1)
    expected = one_direction(halves[0], halves[3], 0.1) + one_direction(halves[1], halves[2], 0.1)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_a_temperature_of_0_is_one_line():
    with pytest.raises(ValueError, match="temperature=0"):
        moclr_loss(*embeddings(), 0.0)
