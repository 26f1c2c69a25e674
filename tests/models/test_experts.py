"""Experts: each image meets its own, all at once or one after the other, and nothing changes them."""

import pytest
import torch
from torch import nn

from ssl_lightning.models import Experts, Projector, ResNet18


def networks(count=3, width=8):
    """With running statistics of their own."""
    torch.manual_seed(0)
    made = []
    for _ in range(count):
        backbone = ResNet18(width).build()
        made.append(nn.Sequential(backbone, Projector(8 * width, [24], 12, last_norm=True)).train())
        made[-1](torch.randn(8, 3, 16, 16))
    return made


@pytest.fixture
def images():
    return torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("width", [8, 16])  # the wider one lays its images out channels last
@pytest.mark.parametrize("own", [[2, 0, 0, 1, 2, 0, 0, 1, 0], [2, 0, 0, 2, 2, 0, 0, 2, 2], [1] * 9])
def test_each_image_is_answered_by_its_own_expert_in_eval_mode(vectorized, width, own, images):
    made = networks(width=width)
    answers = Experts(made, vectorized)(images, torch.tensor(own))
    alone = torch.cat([made[k].eval()(image[None]) for k, image in zip(own, images, strict=True)])
    assert torch.allclose(answers, alone, atol=1e-5)


@pytest.mark.parametrize("vectorized", [False, True])
def test_they_stay_as_they_are_and_leave_the_given_networks_alone(vectorized, images):
    made = networks()
    given = [{name: value.clone() for name, value in network.state_dict().items()} for network in made]
    experts = Experts(made, vectorized).train()
    assert not any(module.training for module in experts.modules())
    assert not any(parameter.requires_grad for parameter in experts.parameters())
    before = {name: value.clone() for name, value in experts.state_dict().items()}
    experts(images, torch.arange(9) % 3)
    assert all(torch.equal(value, before[name]) for name, value in experts.state_dict().items())
    for network, state in zip(made, given, strict=True):
        assert network.training
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("vectorized", [False, True])
def test_they_move_and_compute_in_another_precision(vectorized, images):
    made, own = networks(), torch.arange(9) % 3
    experts = Experts(made, vectorized)
    answers = experts(images, own)
    assert torch.allclose(experts.double()(images.double(), own), answers.double(), atol=1e-5)


def test_other_architectures_are_not_stacked_even_where_the_shapes_are_equal(images):
    made = networks(2)
    made[1][0].body.layer2[0].conv1.stride = (1, 1)
    made[1][0].body.layer2[0].downsample[0].stride = (1, 1)
    assert Experts(made)(images, torch.arange(9) % 2).shape == (9, 12)
    with pytest.raises(ValueError, match="several architectures"):
        Experts(made, vectorized=True)
    with pytest.raises(ValueError, match="no experts"):
        Experts([])
