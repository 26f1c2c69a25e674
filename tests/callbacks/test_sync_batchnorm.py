"""Batch statistics over processes: the conversion keeps timm's activations, and the CPU is rejected in one line."""

import os
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from timm.layers import convert_sync_batchnorm as with_timm
from torch import distributed as dist
from torch import multiprocessing, nn

from ssl_lightning.callbacks import SyncBatchNorm
from ssl_lightning.errors import UsageError
from ssl_lightning.methods import SwAV
from ssl_lightning.models import TimmBackbone
from ssl_lightning.processes import subgroup_of_this_process


def method():
    torch.manual_seed(0)
    return SwAV(16, TimmBackbone("regnety_002"), hidden=(32,), projection=16).eval()


def trainer(kind, processes):
    device = Mock(type=kind)
    return Mock(spec=pl.Trainer, world_size=processes, strategy=Mock(root_device=device))


def test_a_converted_regnet_computes_what_it_did():
    model, images = method(), torch.randn(2, 3, 32, 32)
    before = model.embed(images)
    SyncBatchNorm().setup(trainer("cuda", 2), model, "fit")
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in norms)
    assert torch.equal(model.embed(images), before)


def test_evaluating_before_training_sets_up_twice_and_computes_the_same():
    model, images = method(), torch.randn(2, 3, 32, 32)
    before = model.embed(images)
    for stage in ("validate", "fit", "validate"):
        SyncBatchNorm().setup(trainer("cuda", 2), model, stage)
        assert torch.equal(model.embed(images), before)


def test_torchs_own_conversion_would_lose_the_activations():
    body, images = method().backbone.body, torch.randn(2, 3, 32, 32)
    kept, lost = with_timm(body), nn.SyncBatchNorm.convert_sync_batchnorm(method().backbone.body)
    assert not torch.allclose(kept(images), lost(images), atol=1e-2)


def test_one_process_is_left_alone_and_the_cpu_rejected():
    model = method()
    SyncBatchNorm().setup(trainer("cuda", 1), model, "fit")
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in model.modules())
    with pytest.raises(UsageError, match="leave it off"):
        SyncBatchNorm().setup(trainer("cpu", 2), model, "fit")


def test_a_group_size_reaches_every_layer(monkeypatch):
    requested, group = [], Mock(spec=dist.ProcessGroup)
    monkeypatch.setattr(
        "ssl_lightning.callbacks.sync_batchnorm.subgroup_of_this_process", lambda size: requested.append(size) or group
    )
    model = method()
    for stage in ("validate", "fit"):
        SyncBatchNorm(group_size=8).setup(trainer("cuda", 64), model, stage)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.SyncBatchNorm)]
    assert norms
    assert all(layer.process_group is group for layer in norms)
    assert requested == [8]  # groups are made once


def test_a_group_of_one_is_plain_batch_normalization():
    model = method()
    SyncBatchNorm(group_size=1).setup(trainer("cuda", 4), model, "fit")
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in model.modules())


def test_a_group_size_that_does_not_divide_the_processes_is_rejected_in_one_line():
    with pytest.raises(UsageError, match=r"group_size=8 for 12 processes; expected a divisor") as caught:
        SyncBatchNorm(group_size=8).setup(trainer("cuda", 12), method(), "fit")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="group_size=0; expected at least 1 rank"):
        SyncBatchNorm(group_size=0)


def work(rank, folder):
    """The sum of the ranks of this process's group, for groups of two and of all four."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=4)
    sums = []
    for size in (2, 4):
        total = torch.tensor([float(rank)])
        dist.all_reduce(total, group=subgroup_of_this_process(size))
        sums.append(float(total))
    torch.save(sums, f"{folder}/{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads may outlive the group


@pytest.mark.slow
def test_groups_are_consecutive_ranks(tmp_path):
    context = multiprocessing.spawn(work, (str(tmp_path),), nprocs=4, join=False)
    for _ in range(4):
        context.join(timeout=240)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(4)] == [[1, 6], [1, 6], [5, 6], [5, 6]]


def test_a_single_process_has_no_group():
    assert subgroup_of_this_process(1) is None
