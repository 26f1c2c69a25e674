"""LARC and LARS: the two conventions written out step by step are the oracle."""

import pytest
import torch

from ssl_lightning.errors import UsageError
from ssl_lightning.optim import LARC, LARS, without_decay

LR, DECAY = 0.6, 1e-2


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, generator=generator), torch.randn(4, generator=generator)]


def gradients(step):
    generator = torch.Generator().manual_seed(10 + step)
    return [torch.randn(4, 3, generator=generator), torch.randn(4, generator=generator)]


def run(optimizer, tensors, steps=3):
    for step in range(steps):
        for tensor, gradient in zip(tensors, gradients(step), strict=True):
            tensor.grad = gradient
        optimizer.step()
    return [tensor.detach() for tensor in tensors]


def by_hand(rule, steps=3):
    """SGD with momentum 0.9 on what `rule` makes of gradient and parameter."""
    tensors = parameters()
    velocity = [None, None]
    for step in range(steps):
        for place, gradient in enumerate(gradients(step)):
            update = rule(gradient, tensors[place])
            velocity[place] = update if velocity[place] is None else 0.9 * velocity[place] + update
            tensors[place] = tensors[place] - LR * velocity[place]
    return tensors


def test_larc_adapts_every_tensor_and_clips_nothing():
    def apex(g, p):
        return (g + DECAY * p) * 0.001 * p.norm() / (g.norm() + DECAY * p.norm() + 1e-8)

    tensors = [tensor.requires_grad_() for tensor in parameters()]
    ours = run(LARC(tensors, lr=LR, weight_decay=DECAY), tensors)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, by_hand(apex), strict=True))


def test_larc_adapts_also_without_decay():
    tensors = [tensor.requires_grad_() for tensor in parameters()]
    ours = run(LARC(tensors, lr=LR, weight_decay=0.0), tensors)
    expected = by_hand(lambda g, p: g * 0.001 * p.norm() / (g.norm() + 1e-8))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("clip", [False, True])
def test_lars_leaves_vectors_to_sgd_where_they_have_no_decay(clip):
    def rule(g, p):
        if p.ndim == 1:
            return g
        trust = 0.02 * p.norm() / (g.norm() + DECAY * p.norm() + 1e-8)
        return (g + DECAY * p) * (min(float(trust) / LR, 1.0) if clip else trust)

    tensors = [tensor.requires_grad_() for tensor in parameters()]
    optimizer = LARS(without_decay(tensors), lr=LR, weight_decay=DECAY, trust=0.02, clip=clip)
    ours = run(optimizer, tensors)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, by_hand(rule), strict=True))


def test_a_tensor_without_gradient_is_left_alone():
    tensors = [tensor.requires_grad_() for tensor in parameters()]
    before = tensors[0].detach().clone()
    optimizer = LARC(tensors, lr=LR)
    tensors[1].grad = torch.ones(4)
    optimizer.step()
    assert torch.equal(tensors[0], before)


@pytest.mark.parametrize("kind", [LARC, LARS])
@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("gradient", [0.0, 1.0])
def test_a_fresh_bias_of_length_zero_stays_finite_and_moves_with_its_gradient(kind, decay, gradient):
    bias = torch.zeros(4, requires_grad=True)
    optimizer = kind([bias], lr=LR, weight_decay=decay)
    for _ in range(3):
        bias.grad = torch.full((4,), gradient)
        optimizer.step()
    assert torch.isfinite(bias).all()
    assert bool((bias < 0).all()) == (gradient > 0)


def test_exclusion_splits_every_group_and_keeps_its_options():
    weight, bias = (tensor.requires_grad_() for tensor in parameters())
    groups = without_decay([{"params": [weight, bias], "name": "body", "lr": 0.1}, {"params": [bias], "name": "head"}])
    assert [group["name"] for group in groups] == ["body", "body", "head"]
    assert groups[0]["params"] == [weight]
    assert "weight_decay" not in groups[0]
    assert (groups[1]["lr"], groups[1]["weight_decay"], groups[2]["weight_decay"]) == (0.1, 0.0, 0.0)


@pytest.mark.parametrize("optimizer", [LARC, LARS])
@pytest.mark.parametrize("option", ["lr", "momentum", "weight_decay", "trust"])
def test_a_negative_option_is_rejected(optimizer, option):
    with pytest.raises(UsageError, match=f"found {optimizer.__name__} {option}=-1.0"):
        optimizer(parameters(), **{option: -1.0})


@pytest.mark.parametrize("optimizer", [LARC, LARS])
@pytest.mark.parametrize(("option", "value"), [("momentum", 90.0), ("momentum", 1.0), ("lr", float("nan"))])
def test_percent_and_nan_are_rejected(optimizer, option, value):
    with pytest.raises(UsageError, match=f"found {optimizer.__name__} {option}={value}; expected "):
        optimizer(parameters(), **{option: value})
