"""instance_loss and nce_loss: the paper's formulas as loops, closed forms, and the estimate of Z."""

import math

import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.functional import estimate_partition, instance_loss, nce_loss


def unit(rows, width, seed):
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def value_and_gradient(loss, z):
    z = z.clone().requires_grad_()
    value = loss(z)
    value.backward()
    return value.detach(), z.grad


def softmax_loop(z, index, bank, temperature):
    total = 0.0
    for row, own in zip(z, index.tolist(), strict=True):
        weights = torch.stack([torch.exp(row @ other / temperature) for other in bank])
        total = total - torch.log(weights[own] / weights.sum())
    return total / len(z)


def nce_loop(z, index, negatives, bank, temperature, partition):
    q = negatives.shape[1] / len(bank)
    total = 0.0
    for row, own, sampled in zip(z, index.tolist(), negatives.tolist(), strict=True):
        p = torch.exp(row @ bank[own] / temperature) / partition
        total = total - torch.log(p / (p + q))
        for j in sampled:
            p = torch.exp(row @ bank[j] / temperature) / partition
            total = total - torch.log(q / (p + q))
    return total / len(z)


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_the_exact_loss_is_the_softmax_written_out(temperature):
    z, bank, index = unit(5, 8, 0), unit(30, 8, 1), torch.tensor([3, 0, 29, 3, 7])
    ours = value_and_gradient(lambda x: instance_loss(x, index, bank, temperature), z)
    theirs = value_and_gradient(lambda x: softmax_loop(x, index, bank.double(), temperature), z.double())
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.1])
def test_the_estimate_is_the_papers_formula_written_out(temperature):
    z, bank, index = unit(5, 8, 0), unit(40, 8, 1), torch.tensor([3, 0, 29, 3, 7])
    negatives = torch.randint(40, (5, 12), generator=torch.Generator().manual_seed(2))
    partition = float(estimate_partition(z, bank, temperature))
    ours = value_and_gradient(lambda x: nce_loss(x, index, negatives, bank, temperature, partition), z)
    args = (index, negatives, bank.double(), temperature, partition)
    theirs = value_and_gradient(lambda x: nce_loop(x, *args), z.double())
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-5, rtol=1e-5)


def test_orthogonal_rows_have_a_closed_form():
    bank = torch.eye(16)
    loss = instance_loss(bank[:4], torch.arange(4), bank, 0.1)
    assert float(loss) == pytest.approx(math.log(1 + 15 * math.exp(-10)), abs=1e-6)
    equal = torch.full((4, 16), 0.25)
    assert float(instance_loss(equal, torch.arange(4), bank, 0.1)) == pytest.approx(math.log(16), abs=1e-5)


@pytest.mark.parametrize(("width", "temperature"), [(128, 0.07), (128, 0.1), (64, 0.2)])
def test_z_of_random_embeddings_is_what_theory_reports(width, temperature):
    z, bank = unit(256, width, 0), unit(20_000, width, 1)
    expected = 20_000 * math.exp(1 / (2 * width * temperature**2))
    assert float(estimate_partition(z, bank, temperature)) == pytest.approx(expected, rel=0.05)


def test_nothing_flows_into_the_memory_and_half_precision_is_computed_in_full():
    bank = unit(20, 8, 1).requires_grad_()
    z = unit(4, 8, 0).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = instance_loss(z, torch.arange(4), bank, 0.07)
    loss.backward()
    assert loss.dtype == torch.float32
    assert bank.grad is None
    exact = softmax_loop(z.detach().double(), torch.arange(4), bank.detach().double(), 0.07)
    assert float(loss.detach()) == pytest.approx(float(exact), abs=1e-5)


def test_settings_that_make_no_sense_are_rejected():
    z, bank = unit(2, 4, 0), unit(5, 4, 1)
    with pytest.raises(ValueError, match="temperature=0"):
        instance_loss(z, torch.arange(2), bank, 0.0)
    with pytest.raises(ValueError, match="partition=0"):
        nce_loss(z, torch.arange(2), torch.zeros(2, 3, dtype=torch.int64), bank, 0.1, 0.0)
