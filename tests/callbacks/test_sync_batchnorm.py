"""Batch statistics over processes: the conversion keeps timm's activations, and the CPU is rejected in one line."""

from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from timm.layers import convert_sync_batchnorm as with_timm
from torch import nn

from ssl_lightning.callbacks import SyncBatchNorm
from ssl_lightning.errors import UsageError
from ssl_lightning.methods import SwAV
from ssl_lightning.models import TimmBackbone


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
