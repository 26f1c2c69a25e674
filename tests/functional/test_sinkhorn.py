"""sinkhorn: the algorithm of the paper in float64 as oracle, invariants, and inputs that break plain exponentials."""

import math
import sys

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.nn import functional as F

from ssl_lightning.functional import sinkhorn

HAND = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.7, 0.2, 0.4], [0.1, 0.6, 0.5]])
SCALES = {"cosines": 1.0, "5 x cosines": 5.0, "10 x cosines": 10.0, "50 x cosines": 50.0}


def reference(scores, epsilon=0.05, iterations=3, prior=None):
    """Rounds on logarithms in float64."""
    exponents = scores.double() / epsilon
    k = scores.shape[1]
    shares = torch.full((k,), 1 / k, dtype=torch.float64) if prior is None else prior.double() / prior.double().sum()
    u = exponents.new_zeros(len(scores), 1)
    for _ in range(iterations):
        v = shares.log() - (exponents + u).logsumexp(0)
        u = -(exponents + v).logsumexp(1, keepdim=True)
    return (exponents + v + u).exp()


def paper(scores, epsilon, iterations):
    """Algorithm 1 as it is printed, matrix by matrix, in float64."""
    q = (scores.double() / epsilon).exp().T
    q = q / q.sum()
    k, b = q.shape
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / k
        q = q / q.sum(0, keepdim=True) / b
    return (q * b).T


def cosines(b=96, k=200, d=16, seed=0, spread=None):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(b, d, generator=generator)
    if spread is not None:  # embeddings that have all but collapsed
        z = z[:1] + spread * z
    return F.normalize(z, dim=1) @ F.normalize(torch.randn(k, d, generator=generator), dim=1).T


def inputs():
    kinds = {name: scale * cosines() for name, scale in SCALES.items()}
    kinds["collapsed"] = cosines(spread=0.01)
    kinds["one point"] = cosines(spread=0.0)
    return kinds


@pytest.mark.parametrize(
    ("epsilon", "codes"),
    [
        (0.5, [[0.4999, 0.2229, 0.2772], [0.4225, 0.3433, 0.2342], [0.3283, 0.2667, 0.4050], [0.0833, 0.5, 0.4167]]),
        (0.05, [[0.9930, 0.0005, 0.0065], [0.8323, 0.1622, 0.0054], [0.0484, 0.0094, 0.9422], [0.0, 0.8015, 0.1985]]),
    ],
)
def test_a_hand_worked_case(epsilon, codes):
    assert torch.allclose(sinkhorn(HAND, epsilon), torch.tensor(codes), atol=5e-5)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_it_is_the_algorithm_of_the_paper(iterations):
    scores = cosines()
    assert torch.allclose(sinkhorn(scores, 0.05, iterations).double(), paper(scores, 0.05, iterations), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("epsilon", [0.05, 0.03, 0.005])
@pytest.mark.parametrize("kind", inputs())
def test_it_is_finite_and_exact_where_plain_exponentials_overflow(kind, epsilon, dtype):
    scores = inputs()[kind].to(dtype)
    codes = sinkhorn(scores, epsilon)
    assert codes.dtype == torch.float32
    assert torch.isfinite(codes).all()
    assert float((codes - reference(scores, epsilon)).abs().max()) < 1e-5


@pytest.mark.parametrize("iterations", [3, 10, 50])
@pytest.mark.parametrize("scale", [1e3, 1e4, 1e-30])
def test_scores_of_any_size_give_finite_codes_as_in_float64(scale, iterations):
    scores = scale * cosines()
    codes = sinkhorn(scores, 0.03, iterations)
    assert float((codes - reference(scores, 0.03, iterations)).abs().max()) < 1e-5


def test_scores_near_the_end_of_the_numbers_give_finite_codes():
    for scale in (1e30, 3e38):
        codes = sinkhorn(scale * cosines(), 0.03, 10)
        assert torch.isfinite(codes).all()
        assert torch.allclose(codes.sum(1), torch.ones(96), atol=1e-5)


def test_a_prototype_or_a_image_far_from_everything_still_gets_its_share():
    scores = cosines()
    scores[:, 3] -= 1e4
    scores[5] -= 1e4
    codes = sinkhorn(scores, 0.05, 20)
    assert torch.allclose(codes.sum(1), torch.ones(96), atol=1e-5)
    assert torch.allclose(codes.sum(0), torch.full((200,), 96 / 200), rtol=0.05)


def test_both_ways_agree_where_both_are_exact(monkeypatch):
    scores = cosines()
    fast = sinkhorn(scores, 0.03, 10)
    monkeypatch.setattr(sys.modules["ssl_lightning.functional.sinkhorn"], "LARGEST_LOSS", -1.0)
    assert torch.allclose(sinkhorn(scores, 0.03, 10), fast, atol=1e-6)


def test_what_is_lost_to_underflow_is_noticed_and_fixed():
    # the first image's only good prototype is another's by far: after a round everything that is left of it is tiny
    scores = torch.tensor([[0.0, -4.6, -4.61], [4.7, 0.0, -9.0], [-9.0, -9.0, 0.0]])
    codes = sinkhorn(scores, 0.05, 40)
    assert float((codes - reference(scores, 0.05, 40)).abs().max()) < 1e-5


def test_rows_sum_to_one_and_columns_to_their_share_as_rounds_are_added():
    scores = cosines(512, 64, 64)
    for iterations, error in ((1, 0.5), (3, 0.05), (10, 1e-4), (50, 1e-6)):
        codes = sinkhorn(scores.double(), 0.05, iterations)
        assert torch.allclose(codes.sum(1), torch.ones(512).double(), atol=1e-12)
        assert float((codes.sum(0) / (512 / 64) - 1).abs().max()) < error


@pytest.mark.parametrize("prior", [torch.arange(1, 65) ** -0.5, torch.arange(1, 65).flip(0).float() ** 2])
def test_a_prior_is_met_whatever_its_sum(prior):
    codes = sinkhorn(cosines(512, 64), 0.05, 200, prior)
    assert torch.allclose(codes.sum(0) / 512, prior / prior.sum(), atol=1e-5)
    assert torch.allclose(codes, sinkhorn(cosines(512, 64), 0.05, 200, 7 * prior), atol=1e-6)
    assert float((codes - reference(cosines(512, 64), 0.05, 200, prior)).abs().max()) < 1e-5


def test_prototypes_in_another_order_with_their_shares_have_the_same_codes():
    scores, prior = cosines(96, 40), torch.arange(1, 41) ** -0.7
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    codes = sinkhorn(scores, prior=prior)
    assert torch.allclose(sinkhorn(scores[:, order], prior=prior[order]), codes[:, order], atol=1e-6)
    rows = torch.randperm(96, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(sinkhorn(scores[rows], prior=prior), codes[rows], atol=1e-6)


def test_constant_scores_with_a_prior_give_its_shares():
    prior = torch.tensor([4.0, 2.0, 1.0, 1.0])
    assert torch.allclose(sinkhorn(torch.full((8, 4), 0.7), prior=prior), (prior / 8).expand(8, 4))


def test_constant_scores_give_equal_codes():
    assert torch.allclose(sinkhorn(torch.full((8, 5), 0.7)), torch.full((8, 5), 0.2))


def test_images_and_prototypes_have_no_order():
    scores, rows, columns = cosines(), torch.randperm(96), torch.randperm(200)
    permuted = sinkhorn(scores[rows][:, columns])
    assert torch.allclose(permuted, sinkhorn(scores)[rows][:, columns], atol=1e-6)


def test_a_constant_on_all_scores_changes_nothing_and_one_a_image_only_before_convergence():
    scores, each = cosines().double(), torch.linspace(-0.2, 0.2, 96).double().unsqueeze(1)
    assert torch.allclose(sinkhorn(scores + 3.0), sinkhorn(scores), atol=1e-9)
    assert not torch.allclose(sinkhorn(scores + each), sinkhorn(scores), atol=1e-4)
    assert torch.allclose(sinkhorn(scores + each, iterations=2000), sinkhorn(scores, iterations=2000), atol=1e-6)


def test_autocast_does_not_reach_it():
    scores = cosines()
    with torch.autocast("cpu", torch.bfloat16):
        codes = sinkhorn(scores)
    assert codes.dtype == torch.float32
    assert float((codes - reference(cosines())).abs().max()) < 1e-6


def test_codes_carry_no_gradient_and_scores_stay_as_they_were():
    scores = cosines().requires_grad_()
    before = scores.detach().clone()
    assert not sinkhorn(scores).requires_grad
    assert torch.equal(scores, before)


def test_scores_that_are_not_finite_give_codes_that_are_not():
    for bad in (math.nan, math.inf):
        scores = cosines()
        scores[3, 4] = bad
        assert not torch.isfinite(sinkhorn(scores)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"iterations": 0}, "iterations=0"),
        ({"prior": torch.ones(3)}, r"shape \(3,\).*200"),
        ({"prior": torch.zeros(200)}, "positive shares"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(cosines(), **options)


SHARES = {0: slice(0, 61), 1: slice(61, 96)}
CASES = {"cosines": (1.0, 0.05), "logarithms": (1e4, 0.03)}


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    group = dist.group.WORLD
    found = {
        name: sinkhorn(scale * cosines()[SHARES[rank]], epsilon, 3, torch.arange(1.0, 201.0), group)
        for name, (scale, epsilon) in CASES.items()
    }
    own = cosines() if rank == 0 else cosines()[:0]
    found["none here"] = sinkhorn(own, 0.05, 3, None, group)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, (scale, epsilon) in CASES.items():
        one = sinkhorn(scale * cosines(), epsilon, 3, torch.arange(1.0, 201.0))
        assert torch.allclose(torch.cat([first[name], second[name]]), one, atol=1e-5), name
    assert torch.allclose(first["none here"], sinkhorn(cosines()), atol=1e-6)
    assert len(second["none here"]) == 0
