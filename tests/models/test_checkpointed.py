"""Activation checkpointing: less memory, and not a bit of difference in loss, gradients or running statistics."""

import copy

import pytest
import torch

from ssl_lightning.models import TimmBackbone, TorchvisionBackbone
from ssl_lightning.models.checkpointed import CheckpointedStage, checkpoint_stages

NETWORKS = {
    "timm RegNetY": TimmBackbone("regnety_002"),
    "timm ResNet": TimmBackbone("resnet10t"),
    "torchvision RegNetY": TorchvisionBackbone("regnet_y_400mf"),
    "torchvision ResNet": TorchvisionBackbone("resnet18"),
}
SEER = {  # stage depths, stage widths, millions of parameters of the trunk
    "regnety_320": ([2, 5, 12, 1], [232, 696, 1392, 3712], 141),
    "regnety_640": ([2, 5, 12, 1], [328, 984, 1968, 4920], 277),
    "regnety_1280": ([2, 7, 17, 1], [528, 1056, 2904, 7392], 637),
    "regnety_2560": ([2, 7, 17, 1], [746, 1492, 4103, 10444], 1272),
}


def pair(description):
    torch.manual_seed(0)
    plain = description.build()
    torch.manual_seed(0)
    kind = type(description)
    return plain, kind(name=description.name, activation_checkpointing=True).build()


def images():
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def step(network, precision=None):
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = network(images()).float().square().mean()
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_loss_gradients_and_running_statistics_are_equal_to_the_bit(name, precision):
    plain, checkpointed = pair(NETWORKS[name])
    assert any(isinstance(module, CheckpointedStage) for module in checkpointed.modules())
    for _ in range(2):
        assert torch.equal(step(plain, precision), step(checkpointed, precision))
    for (key, one), two in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad), key
    ours, theirs = plain.state_dict(), checkpointed.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def kept_bytes(network):
    total = 0

    def count(tensor):
        nonlocal total
        total += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        network(images())
    return total


def test_it_keeps_a_fraction_of_the_activations():
    plain, checkpointed = pair(NETWORKS["timm RegNetY"])
    assert kept_bytes(checkpointed) < 0.4 * kept_bytes(plain)


def test_evaluating_and_copies_are_as_without():
    plain, checkpointed = pair(NETWORKS["timm RegNetY"])
    copied = copy.deepcopy(checkpointed)
    step(checkpointed)
    assert all(parameter.grad is None for parameter in copied.parameters())
    with torch.no_grad():
        assert torch.equal(plain.eval()(images()), copied.eval()(images()))


def test_a_network_without_stages_is_rejected_in_one_line():
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224.*leave it off"):
        checkpoint_stages(torch.nn.Linear(2, 2), "vit_tiny_patch16_224")


@pytest.mark.parametrize("name", SEER)
def test_seers_trunks_have_the_depths_widths_and_parameters_of_the_paper(name):
    depths, widths, millions = SEER[name]
    with torch.device("meta"):
        network = TimmBackbone(name, activation_checkpointing=True).build()
    stages = [module for module in network.modules() if isinstance(module, CheckpointedStage)]
    assert [len(stage) for stage in stages] == depths
    assert [info["num_chs"] for info in network.body.feature_info[1:]] == widths
    assert network.num_features == widths[-1]
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)
