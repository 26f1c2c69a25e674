"""distillation_loss: section 3.3 of Divide and Contrast as a loop in float64, its closed forms, and its gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_lightning.functional import distillation_loss


def embeddings(b=6, d=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(b, d, generator=generator).requires_grad_() for _ in range(4)]


def loop(base_prediction, expert_prediction, base_target, expert_target):
    total = 0.0
    pairs = ((base_prediction, base_target), (expert_prediction, expert_target))
    for predictions, targets in pairs:
        for r, t in zip(predictions.double(), targets.double(), strict=True):
            total = total + 0.5 * (r - t / t.norm()).square().sum() / len(predictions)
    return total


def test_it_is_half_the_squared_distance_to_each_teacher_in_value_and_gradient():
    r_base, r_expert, t_base, t_expert = embeddings()
    loss = distillation_loss(r_base, r_expert, t_base, t_expert)
    expected = loop(r_base, r_expert, t_base.detach(), t_expert.detach())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (r_base, r_expert)), torch.autograd.grad(expected, (r_base, r_expert)), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_teachers_unit_embeddings_cost_nothing_and_zeros_cost_1():
    targets = [rows.detach() for rows in embeddings()[:2]]
    met = [F.normalize(rows, dim=1) for rows in targets]
    assert float(distillation_loss(*met, *targets)) == pytest.approx(0.0, abs=1e-6)
    assert float(distillation_loss(*(torch.zeros(6, 4),) * 2, *targets)) == pytest.approx(1.0, abs=1e-6)


def test_the_length_of_targets_does_not_matter_and_that_of_predictions_does():
    r_base, r_expert, t_base, t_expert = (rows.detach() for rows in embeddings())
    loss = float(distillation_loss(r_base, r_expert, t_base, t_expert))
    assert float(distillation_loss(r_base, r_expert, 7 * t_base, t_expert / 3)) == pytest.approx(loss, abs=1e-5)
    assert abs(float(distillation_loss(2 * r_base, r_expert, t_base, t_expert)) - loss) > 0.1


def test_teachers_get_no_gradient():
    every = embeddings()
    distillation_loss(*every).backward()
    assert [rows.grad is None for rows in every] == [False, False, True, True]


def test_only_the_regressors_of_the_base_and_of_the_images_own_cluster_learn():
    torch.manual_seed(0)
    z, targets, clusters = torch.randn(8, 4), torch.randn(4, 8, 4), torch.tensor([1, 1, 3, 1, 3, 3, 1, 1])
    base, experts = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
    rows = torch.arange(8)
    own = torch.stack([expert(z) for expert in experts])[clusters, rows]
    distillation_loss(base(z), own, torch.randn(8, 4), targets[clusters, rows]).backward()
    moved = [bool(expert.weight.grad.abs().sum() > 0) for expert in experts]
    assert moved == [False, True, False, True]
    assert base.weight.grad.abs().sum() > 0


def test_half_precision_is_summed_in_float32_also_under_autocast():
    halves = [rows.detach().bfloat16() for rows in embeddings()]
    with torch.autocast("cpu", torch.bfloat16):
        loss = distillation_loss(*halves)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(loop(*halves)), abs=1e-5)
