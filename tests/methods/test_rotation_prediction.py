"""RotationPrediction: all four turns of every image, their cross-entropy and its gradient."""

import math

import pytest
import torch

from ssl_lightning.methods import RotationPrediction
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.types import Batch


def turned_by_hand(images, turns):
    """Quarter turns counter-clockwise, by transposing and reversing."""
    for _ in range(turns):
        images = images.transpose(2, 3).flip(2)
    return images


def batch_of(views):
    return Batch(torch.arange(len(views)), [views], torch.full((len(views),), -1))


@pytest.fixture
def method():
    torch.manual_seed(0)
    return RotationPrediction(ResNet18(8), preprocessing=Preprocessing(16))


def test_loss_and_gradient_are_those_of_each_turn_classified_by_itself(method):
    method.eval()  # batch statistics would tie the turns together
    views = torch.randn(5, 3, 16, 16)
    loss = method.training_step(batch_of(views), 0)["loss"]
    log_p = [method.head(method.backbone(turned_by_hand(views, k))).double().log_softmax(1)[:, k] for k in range(4)]
    expected = -torch.stack(log_p).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    parameters = [method.head.weight, method.backbone.body.conv1.weight]
    gradients, by_hand = torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, by_hand, strict=True))


def test_all_four_turns_of_a_image_share_one_batch(method):
    seen = []
    method.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    views = torch.randn(3, 3, 16, 16)
    method.training_step(batch_of(views), 0)
    (turned,) = seen
    assert torch.equal(turned, torch.cat([turned_by_hand(views, turns) for turns in range(4)]))


def test_a_step_reports_of_unturned_images_and_of_every_turns_scores(method):
    views = torch.randn(6, 3, 16, 16)
    told = method.train().training_step(batch_of(views), 0)
    assert told["embeddings"].shape == (6, 64)
    assert told["scores"].shape == (24, 4)
    assert not told["embeddings"].requires_grad


def test_a_head_that_knows_nothing_is_at_chance(method):
    torch.nn.init.zeros_(method.head.weight)
    torch.nn.init.zeros_(method.head.bias)
    loss = method.training_step(batch_of(torch.randn(4, 3, 16, 16)), 0)["loss"]
    assert method.chance_loss == pytest.approx(math.log(4))
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


def test_images_without_an_up_cannot_be_reported_apart(method):
    row = torch.randn(2, 3, 8)
    views = row.unsqueeze(2) + row.unsqueeze(3)
    round_ = torch.cat([torch.cat([views, views.flip(3)], 3), torch.cat([views.flip(2), views.flip((2, 3))], 3)], 2)
    told = method.eval().training_step(batch_of(round_), 0)
    assert torch.allclose(told["scores"].view(4, 2, 4).std(0), torch.zeros(2, 4), atol=1e-5)
    assert told["loss"].item() >= math.log(4) - 1e-5


def test_logits_are_of_images_as_they_are(method):
    views = torch.randn(3, 3, 16, 16)
    told = method.eval().training_step(batch_of(views), 0)
    assert torch.allclose(method.logits(views), told["scores"][:3], atol=1e-5)
