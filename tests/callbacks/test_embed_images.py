"""Features without a trainer are those that a trainer gives."""

import lightning.pytorch as pl
import pytest
import torch

from ssl_lightning.callbacks import embed
from ssl_lightning.callbacks.embed import embed_images
from ssl_lightning.checkpoints import DurableCheckpointIO, load_model
from ssl_lightning.data import Digits
from ssl_lightning.methods import DeepCluster
from ssl_lightning.models import ResNet18


@pytest.fixture
def model():
    pl.seed_everything(1, verbose=False)
    made = DeepCluster(12, ResNet18(8), preprocessing=Digits().preprocessing)
    made(torch.randn(64, 3, 16, 16))  # moves the running statistics, which eval mode must use
    return made


def test_they_are_what_predict_gives(model):
    rows, features = embed_images(model, Digits(), progress=False)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    batches = trainer.predict(model, datamodule=Digits())
    assert torch.equal(rows, torch.arange(1438))
    assert torch.equal(rows, torch.cat([batch["index"] for batch in batches]))
    assert torch.equal(features, torch.cat([batch["features"] for batch in batches]))
    assert not features.requires_grad


def test_model_and_random_state_stay_as_they_are(model):
    model.train()
    model.backbone.eval()
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    embed_images(model, Digits(), progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [part.training for part in model.modules()]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("shown", [True, False])
def test_the_progress_of_the_pass_is_shown(model, shown, monkeypatch):
    calls = []
    monkeypatch.setattr(embed, "shown_progress", lambda loader, *what, **how: calls.append((what, how)) or loader)
    embed_images(model, Digits(), progress=shown)
    assert calls == [(("computing features", "batches"), {"shown": shown})]


@pytest.mark.parametrize(
    "other",
    [{"image_size": 32}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.2, 0.3, 0.3)}],
    ids=lambda other: next(iter(other)),
)
def test_data_that_are_prepared_in_another_way_are_rejected(model, other):
    (name, value) = next(iter(other.items()))
    with pytest.raises(ValueError, match=rf"found data\.{name}={value!r}".replace("(", r"\(").replace(")", r"\)")):
        embed_images(model, Digits(**other))


def test_a_checkpoint_keeps_the_preprocessing_of_the_data(model, tmp_path):
    checkpoint = {"state_dict": model.state_dict(), "global_step": 1, "epoch": 0}
    model.on_save_checkpoint(checkpoint)
    DurableCheckpointIO().save_checkpoint(checkpoint, tmp_path / "step-1.ckpt")
    assert len(embed_images(load_model(tmp_path / "step-1.ckpt"), Digits(), progress=False)[0]) == 1438
