"""local_aggregation_loss: the paper's sets and formula as loops over images, its closed forms, its edges."""

import math

import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.functional import instance_loss, local_aggregation_loss
from ssl_lightning.functional.local_aggregation import neighbors

N, D = 60, 8


def unit(rows, width, seed):
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def clusters(rows, k, heads, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(k, (rows, heads), generator=generator, dtype=torch.int32)


def loop(z, index, bank, labels, num_neighbors, temperature):
    """Equation 4, image by image, with sets of Python."""
    total = 0.0
    for row, own in zip(z, index.tolist(), strict=True):
        similar = [float(row.detach() @ other) for other in bank]
        background = set(sorted(range(len(bank)), key=lambda j: -similar[j])[:num_neighbors]) | {own}
        close = {own}
        for head in range(labels.shape[1]):
            if labels[own, head] >= 0:
                close |= {j for j in range(len(bank)) if labels[j, head] == labels[own, head]}
        mass = {j: torch.exp(row @ bank[j] / temperature) for j in background}
        total = total - torch.log(sum(mass[j] for j in background & close) / sum(mass.values()))
    return total / len(z)


def value_and_gradient(loss, z):
    z = z.clone().requires_grad_()
    value = loss(z)
    value.backward()
    return value.detach(), z.grad


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
@pytest.mark.parametrize(("k", "num_neighbors", "heads"), [(4, 20, 1), (10, 20, 3), (10, 5, 2), (3, N, 2), (30, 1, 2)])
def test_the_loss_is_the_papers_formula_written_out(k, num_neighbors, heads, temperature):
    z, bank, labels = unit(7, D, 0), unit(N, D, 1), clusters(N, k, heads, 2)
    index = torch.tensor([3, 0, 59, 3, 7, 20, 21])
    args = (index, labels, num_neighbors, temperature)
    ours = value_and_gradient(lambda x: local_aggregation_loss(x, args[0], bank, *args[1:]), z)
    theirs = value_and_gradient(lambda x: loop(x, args[0], bank.double(), *args[1:]), z.double())
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-5, rtol=1e-5)


def test_one_cluster_of_all_rows_gives_zero():
    z, bank, index = unit(5, D, 0), unit(N, D, 1), torch.arange(5)
    one = torch.zeros(N, 2, dtype=torch.int32)
    value, gradient = value_and_gradient(lambda x: local_aggregation_loss(x, index, bank, one, 20, 0.1), z)
    assert float(value) == 0.0
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_clusters_of_one_image_and_all_rows_as_background_are_instance_recognition(temperature):
    z, bank, index = unit(5, D, 0), unit(N, D, 1), torch.tensor([4, 9, 1, 59, 0])
    alone = torch.arange(N, dtype=torch.int32).unsqueeze(1)
    ours = value_and_gradient(lambda x: local_aggregation_loss(x, index, bank, alone, N, temperature), z)
    theirs = value_and_gradient(lambda x: instance_loss(x, index, bank, temperature), z)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_more_clusterings_never_raise_the_loss():
    z, bank, labels, index = unit(9, D, 0), unit(N, D, 1), clusters(N, 12, 6, 2), torch.arange(9)
    losses = [float(local_aggregation_loss(z, index, bank, labels[:, :h], 25, 0.1)) for h in range(1, 7)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_row_that_is_far_from_its_own_memory_still_has_a_loss_and_a_gradient():
    bank = unit(N, D, 1)
    z, index = -bank[:3], torch.arange(3)  # the own row is the farthest of all
    alone = torch.arange(N, dtype=torch.int32).unsqueeze(1)
    value, gradient = value_and_gradient(lambda x: local_aggregation_loss(x, index, bank, alone, 10, 0.07), z)
    expected = loop(z.double(), index, bank.double(), alone, 10, 0.07)
    assert float(value) == pytest.approx(float(expected), abs=1e-4)
    assert float(value) > -math.log(1e-7)  # beyond where public code is flat
    assert gradient.norm(dim=1).min() > 1.0


def test_rows_without_a_cluster_share_it_with_nobody():
    z, bank, index = unit(4, D, 0), unit(N, D, 1), torch.arange(4)
    nowhere = torch.full((N, 2), -1, dtype=torch.int32)
    alone = torch.arange(N, dtype=torch.int32).unsqueeze(1)
    ours = local_aggregation_loss(z, index, bank, nowhere, 30, 0.1)
    assert float(ours) == pytest.approx(float(local_aggregation_loss(z, index, bank, alone, 30, 0.1)))


def test_names_of_clusters_and_order_of_rows_do_not_matter():
    z, bank, labels, index = unit(6, D, 0), unit(N, D, 1), clusters(N, 8, 2, 2), torch.arange(6)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    where = order.argsort()
    loss = float(local_aggregation_loss(z, index, bank, labels, 25, 0.1))
    assert float(local_aggregation_loss(z, index, bank, 7 - labels, 25, 0.1)) == pytest.approx(loss)
    moved = local_aggregation_loss(z, where[index], bank[order], labels[order], 25, 0.1)
    assert float(moved) == pytest.approx(loss, abs=1e-6)


def test_the_own_row_is_in_both_sets_once():
    bank, labels = unit(N, D, 1), clusters(N, 5, 2, 2)
    index = torch.tensor([10, 40])
    found = neighbors(bank[index] @ bank.T, index, labels, 15)
    for place, own in enumerate(index.tolist()):
        background = found.rows[place][found.background[place]].tolist()
        assert len(background) == len(set(background)) == 15  # its own row is its nearest
        assert background.count(own) == 1
        close = found.rows[place][found.close[place]].tolist()
        assert close.count(own) == 1
        assert set(close) <= set(background)


def test_nothing_flows_into_the_memory_and_half_precision_is_computed_in_full():
    bank, labels, index = unit(N, D, 1).requires_grad_(), clusters(N, 5, 2, 2), torch.arange(4)
    z = unit(4, D, 0).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = local_aggregation_loss(z, index, bank, labels, 20, 0.07)
    loss.backward()
    assert loss.dtype == torch.float32
    assert bank.grad is None
    exact = loop(z.detach().double(), index, bank.detach().double(), labels, 20, 0.07)
    assert float(loss.detach()) == pytest.approx(float(exact), abs=1e-5)


@pytest.mark.parametrize("num_neighbors", [0, N + 1])
def test_more_neighbors_than_rows_are_rejected(num_neighbors):
    with pytest.raises(ValueError, match=f"num_neighbors={num_neighbors} for {N} images"):
        local_aggregation_loss(unit(2, D, 0), torch.arange(2), unit(N, D, 1), clusters(N, 5, 1, 2), num_neighbors, 0.1)


def test_a_temperature_of_zero_is_rejected():
    with pytest.raises(ValueError, match="temperature=0"):
        local_aggregation_loss(unit(2, D, 0), torch.arange(2), unit(N, D, 1), clusters(N, 5, 1, 2), 5, 0.0)
