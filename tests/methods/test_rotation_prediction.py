"""RotationPrediction: all four turns of every image, their cross-entropy and its gradient."""

import math

import pytest
import torch

from ssl_lightning.methods import RotationPrediction
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.types import Batch


def rotated_by_hand(images, turns):
    """Rotations by 90 degrees counter-clockwise, by transposing and reversing."""
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
    log_p = [method.head(method.backbone(rotated_by_hand(views, k))).double().log_softmax(1)[:, k] for k in range(4)]
    expected = -torch.stack(log_p).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    parameters = [method.head.weight, method.backbone.body.conv1.weight]
    gradients, by_hand = torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, by_hand, strict=True))


def test_all_four_rotations_of_an_image_share_one_batch(method):
    seen = []
    method.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    views = torch.randn(3, 3, 16, 16)
    method.training_step(batch_of(views), 0)
    (rotated,) = seen
    assert torch.equal(rotated, torch.cat([rotated_by_hand(views, turns) for turns in range(4)]))


def test_a_step_returns_embeddings_of_unrotated_images_and_scores_of_every_rotation(method):
    views = torch.randn(6, 3, 16, 16)
    output = method.train().training_step(batch_of(views), 0)
    assert output["embeddings"].shape == (6, 64)
    assert output["scores"].shape == (24, 4)
    assert not output["embeddings"].requires_grad


def test_a_head_that_knows_nothing_is_at_chance(method):
    torch.nn.init.zeros_(method.head.weight)
    torch.nn.init.zeros_(method.head.bias)
    loss = method.training_step(batch_of(torch.randn(4, 3, 16, 16)), 0)["loss"]
    assert method.chance_loss == pytest.approx(math.log(4))
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


def test_rotations_of_symmetric_images_cannot_be_distinguished(method):
    row = torch.randn(2, 3, 8)
    views = row.unsqueeze(2) + row.unsqueeze(3)
    round_ = torch.cat([torch.cat([views, views.flip(3)], 3), torch.cat([views.flip(2), views.flip((2, 3))], 3)], 2)
    output = method.eval().training_step(batch_of(round_), 0)
    assert torch.allclose(output["scores"].view(4, 2, 4).std(0), torch.zeros(2, 4), atol=1e-5)
    assert output["loss"].item() >= math.log(4) - 1e-5


def test_logits_are_of_images_as_they_are(method):
    views = torch.randn(3, 3, 16, 16)
    output = method.eval().training_step(batch_of(views), 0)
    assert torch.allclose(method.logits(views), output["scores"][:3], atol=1e-5)
