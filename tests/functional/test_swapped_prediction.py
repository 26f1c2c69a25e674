"""swapped_prediction_loss: the paper's double sum as a loop is the oracle, in value and gradient."""

import math

import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.functional import swapped_prediction_loss


def scores_and_codes(views=4, codes=2, b=6, k=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randn(b, k, generator=generator).requires_grad_() for _ in range(views)]
    return scores, [torch.randn(b, k, generator=generator).softmax(1) for _ in range(codes)]


def loop(scores, codes, temperature):
    """Equation 6, pair by pair and image by image."""
    total = 0.0
    for a, code in enumerate(codes):
        for v, score in enumerate(scores):
            if v == a:
                continue
            for i in range(len(score)):
                log_p = torch.log_softmax(score[i] / temperature, 0)
                total = total - (code[i] * log_p).sum() / (len(score) * (len(scores) - 1) * len(codes))
    return total


@pytest.mark.parametrize(("views", "codes"), [(2, 2), (4, 2), (3, 1), (2, 1), (4, 4)])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_it_is_the_mean_over_codes_of_the_mean_over_the_other_views(views, codes, temperature):
    scores, targets = scores_and_codes(views, codes)
    loss = swapped_prediction_loss(scores, targets, temperature)
    ours = torch.autograd.grad(loss, scores, allow_unused=True)
    expected = loop(scores, targets, temperature)
    theirs = torch.autograd.grad(expected, scores, allow_unused=True)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for own, slow in zip(ours, theirs, strict=True):
        assert (own is None) == (slow is None)
        assert own is None or torch.allclose(own, slow, atol=1e-5)


def test_two_views_are_the_average_of_the_two_swapped_terms():
    scores, codes = scores_and_codes(2)
    scores = [score.detach() for score in scores]
    crossed = sum(F.cross_entropy(scores[1 - a] / 0.1, codes[a]) for a in (0, 1)) / 2
    assert float(swapped_prediction_loss(scores, codes)) == pytest.approx(float(crossed), rel=1e-5)


def test_exchanging_the_two_coded_views_changes_nothing():
    scores, codes = scores_and_codes()
    exchanged = swapped_prediction_loss([scores[1], scores[0], *scores[2:]], [codes[1], codes[0]])
    assert float(swapped_prediction_loss(scores, codes).detach()) == pytest.approx(float(exchanged.detach()), rel=1e-6)


def test_embeddings_that_have_collapsed_cost_the_logarithm_of_k():
    scores = [torch.full((8, 512), 0.3) for _ in range(3)]
    codes = [torch.full((8, 512), 1 / 512)] * 2
    assert float(swapped_prediction_loss(scores, codes).detach()) == pytest.approx(math.log(512), rel=1e-5)


def test_codes_get_no_gradient():
    scores, codes = scores_and_codes()
    codes = [code.requires_grad_() for code in codes]
    swapped_prediction_loss(scores, codes).backward()
    assert all(code.grad is None for code in codes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_summed_in_float32_also_under_autocast(dtype):
    scores, codes = scores_and_codes()
    halves = [score.detach().to(dtype) for score in scores]
    with torch.autocast("cpu", torch.bfloat16):
        loss = swapped_prediction_loss(halves, codes)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(loop([half.float() for half in halves], codes, 0.1)), rel=1e-5)


def test_a_wrong_number_of_views_or_temperature_is_one_line():
    scores, codes = scores_and_codes()
    with pytest.raises(ValueError, match="scores of 1 views"):
        swapped_prediction_loss(scores[:1], codes[:1])
    with pytest.raises(ValueError, match="codes of 3"):
        swapped_prediction_loss(scores[:2], [*codes, codes[0]])
    with pytest.raises(ValueError, match="temperature=0"):
        swapped_prediction_loss(scores, codes, 0.0)
