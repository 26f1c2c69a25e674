"""nt_xent_loss: algorithm 1 of SimCLR as a loop in float64, closed forms, and two processes that equal one."""

import math

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from ssl_lightning.functional import moclr_loss, nt_xent_loss

B, D, TAU = 7, 5, 0.3
SHARES = {0: slice(0, 4), 1: slice(4, 7)}


def views(b=B, d=D, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, d, generator=generator) for _ in range(count)]


def loop(z1, z2, temperature):
    """Anchor by anchor, pair by pair."""
    z = [row / row.norm() for pair in zip(z1.double(), z2.double(), strict=True) for row in pair]
    total = 0.0
    for a, anchor in enumerate(z):
        partner = a + 1 if a % 2 == 0 else a - 1
        others = [((anchor * z[b]).sum() / temperature).exp() for b in range(len(z)) if b != a]
        total = total - ((anchor * z[partner]).sum() / temperature - torch.stack(others).sum().log())
    return total / len(z)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_value_and_gradient_equal_a_loop_in_float64(temperature):
    z = [view.requires_grad_() for view in views()]
    loss, expected = nt_xent_loss(*z, temperature), loop(*z, temperature)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, z), torch.autograd.grad(expected, z), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_embeddings_that_are_all_equal_cost_the_logarithm_of_the_others():
    same = torch.full((64, 3), 0.7)
    assert float(nt_xent_loss(same, same, 0.2)) == pytest.approx(math.log(127), abs=1e-5)


def test_perfect_pairs_that_are_orthogonal_to_all_others_by_hand():
    z = torch.eye(64)
    assert float(nt_xent_loss(z, 3 * z, 0.2)) == pytest.approx(math.log(1 + 126 * math.exp(-5)), abs=1e-5)


def test_neither_length_nor_order_of_images_nor_of_views_matters():
    z1, z2 = views()
    order = torch.randperm(B)
    expected = float(nt_xent_loss(z1, z2, TAU))
    for other in ((3 * z1, z2 / 2), (z1[order], z2[order]), (z2, z1)):
        assert float(nt_xent_loss(*other, TAU)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32_also_under_autocast(dtype):
    z1, z2 = (view.to(dtype) for view in views())
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent_loss(z1, z2, 0.05)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(loop(z1, z2, 0.05)), abs=1e-5)


def test_a_temperature_of_0_is_one_line():
    with pytest.raises(ValueError, match="temperature=0"):
        nt_xent_loss(*views(), 0.0)


def work(rank, folder):
    """Both contrastive losses of one process's rows, and their gradients, as DDP would add them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    own = [view[SHARES[rank]].requires_grad_() for view in views(count=4)]
    found = {}
    for name, loss in losses(own, dist.group.WORLD).items():
        gradients = torch.autograd.grad(len(own[0]) * loss, own, allow_unused=True)
        found[name] = (len(own[0]) * loss.detach(), gradients)  # sums, since the processes have unequal numbers of rows
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def losses(four, group):
    return {"nt_xent": nt_xent_loss(*four[:2], TAU, group), "moclr": moclr_loss(*four, TAU, group)}


@pytest.mark.slow
def test_two_processes_with_unequal_rows_have_the_loss_and_the_gradients_of_one(tmp_path):
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    whole = [view.requires_grad_() for view in views(count=4)]
    for name, loss in losses(whole, None).items():
        expected = torch.autograd.grad(loss, whole, allow_unused=True)
        assert sum(float(part[name][0]) for part in parts) / B == pytest.approx(float(loss.detach()), abs=1e-5)
        for view, gradient in enumerate(expected):
            halves = [part[name][1][view] for part in parts]
            assert (gradient is None) == all(half is None for half in halves)
            if gradient is not None:
                assert torch.allclose(torch.cat(halves) / B, gradient, atol=1e-5), name
