"""The teacher: its schedule in closed form, its weights against the sum written out, its place in a checkpoint."""

import copy
import math

import pytest
import torch
from torch import nn

from ssl_lightning.models import EmaTeacher


def student():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def move(net):
    net(torch.randn(8, 3, 6, 6))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))


def floats(net):
    return [value.clone() for value in net.state_dict().values() if value.is_floating_point()]


@pytest.mark.parametrize(("step", "tau"), [(0, 0.9), (50, 0.95), (100, 1.0), (130, 1.0)])
def test_the_momentum_rises_with_half_a_cosine(step, tau):
    teacher = EmaTeacher(student(), 0.9)
    assert teacher.tau(step, 100) == pytest.approx(tau)


def test_weights_and_running_statistics_are_the_sum_written_out():
    net = student()
    teacher = EmaTeacher(net, 0.8)
    expected = [value.double() for value in floats(net)]
    for step in range(5):
        move(net)
        teacher.follow(net, step, 5)
        tau = 1 - 0.2 * (math.cos(math.pi * step / 5) + 1) / 2
        expected = [tau * old + (1 - tau) * new for old, new in zip(expected, floats(net), strict=True)]
    for ours, theirs in zip(floats(teacher.average.module), expected, strict=True):
        assert torch.allclose(ours.double(), theirs, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_a_momentum_of_one_stays_and_of_zero_copies(momentum):
    net = student()
    before = floats(net)
    teacher = EmaTeacher(net, momentum)
    move(net)
    teacher.follow(net, 0, 10)
    wanted = before if momentum else floats(net)
    assert all(torch.equal(a, b) for a, b in zip(floats(teacher.average.module), wanted, strict=True))


def test_it_learns_nothing_and_survives_a_checkpoint():
    net = student()
    teacher = EmaTeacher(net, 0.5)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    move(net)
    teacher.follow(net, 0, 4)
    restored = EmaTeacher(student(), 0.5)
    restored.load_state_dict(copy.deepcopy(teacher.state_dict()))
    move(net)
    for one in (teacher, restored):
        one.follow(net, 1, 4)
    images = torch.randn(2, 3, 6, 6)
    assert torch.equal(teacher.eval()(images), restored.eval()(images))


def test_a_momentum_out_of_range_is_rejected():
    with pytest.raises(ValueError, match=r"momentum of 1\.2"):
        EmaTeacher(student(), 1.2)
