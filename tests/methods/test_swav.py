"""SwAV: its step against an independent one, the queue, the frozen prototypes, the sphere, several resolutions."""

import math

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.data import Digits, View
from ssl_lightning.functional import sinkhorn
from ssl_lightning.methods import SwAV
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.optim import LARC, WarmupCosine
from ssl_lightning.types import Batch
from tests.methods.quiet import QUIET

PLAIN = {"scale": (0.5, 1.0), "horizontal_flip": 0.0, "color_jitter": (0.0, 0.0, 0.0, 0.0), "grayscale": 0.0}
TWO = View(count=2, **PLAIN)
SMALL = {
    "num_prototypes": 30,
    "backbone": ResNet18(8),
    "hidden": (32,),
    "projection": 16,
    "preprocessing": Preprocessing(16),
}


OUT_OF_RANGE = {"num_prototypes": 1, "temperature": 0.0, "epsilon": -0.1, "sinkhorn_iterations": 0, "queue_length": -1}
OUT_OF_RANGE |= {"freeze_epochs": -1.0, "queue_start_epoch": -1.0, "freeze_steps": -1}


class Spy(pl.Callback):
    def __init__(self) -> None:
        self.prototypes, self.momentum, self.codes, self.queues, self.embeddings = [], [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        weight = pl_module.prototypes.weight
        self.prototypes.append(weight.detach().clone())
        self.momentum.append(trainer.optimizers[0].state[weight].get("momentum_buffer"))
        self.codes.append(outputs["codes"])
        self.embeddings.append(outputs["embeddings"])
        self.queues.append(pl_module.queue.rows.clone())


def swav(**options):
    pl.seed_everything(0, verbose=False)
    return SwAV(**(SMALL | options))


def fit(method, *callbacks, views=(TWO,), epochs=2, batch_size=256, **trainer):
    data = Digits(batch_size=batch_size, views=list(views), image_size=16)
    trainer = pl.Trainer(
        **QUIET,
        max_epochs=epochs,
        callbacks=list(callbacks),
        **trainer,
    )
    trainer.fit(method, data)
    return trainer


def batch(sizes=(16, 16), rows=12):
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(rows, 3, size, size, generator=generator) for size in sizes]
    return Batch(torch.arange(rows), views, torch.full((rows,), -1))


def alone(method):
    """A method in a step without a run around it."""
    method.trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu")
    return method


@pytest.mark.parametrize("sizes", [(16, 16), (16, 16, 8, 8)])
def test_a_step_is_the_algorithm_written_out_in_value_and_gradient(sizes):
    method = alone(swav())
    views = batch(sizes).views
    loss = method.training_step(batch(sizes), 0)["loss"]
    names, tensors = zip(*method.named_parameters(), strict=True)
    ours = torch.autograd.grad(loss, tensors)

    big, small = method.backbone(torch.cat(views[:2])), [method.backbone(torch.cat(views[2:]))] if views[2:] else []
    z = F.normalize(method.projector(torch.cat([big, *small])), dim=1)
    s = (z @ method.prototypes.weight.T).split(12)
    total = 0.0
    for a in (0, 1):
        q = (s[a].detach().double() / 0.05).exp().T
        for _ in range(3):
            q = q / q.sum(1, keepdim=True) / 30
            q = q / q.sum(0, keepdim=True)
        others = [-(q.T * torch.log_softmax(s[v] / 0.1, 1)).sum(1).mean() for v in range(len(s)) if v != a]
        total = total + sum(others) / (2 * len(others))
    theirs = torch.autograd.grad(total, tensors)
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    for name, own, slow in zip(names, ours, theirs, strict=True):
        assert torch.allclose(own, slow.float(), atol=1e-5, rtol=1e-4), name


def test_one_call_of_the_backbone_a_resolution_equals_a_call_a_view_where_there_are_no_batch_statistics():
    method = swav().eval()
    views = batch((16, 16, 8, 8, 8)).views
    calls = []
    method.backbone.register_forward_hook(lambda module, given, made: calls.append(len(given[0])))
    together = method.embed_views(views)
    assert calls == [24, 36]
    for view, z in zip(views, together, strict=True):
        assert torch.allclose(z, F.normalize(method.projector(method.backbone(view)), dim=1), atol=1e-5)


def test_prototypes_are_frozen_without_gradient_momentum_or_decay_then_move_on_the_sphere():
    spy = Spy()
    method = swav(freeze_epochs=1.0, optimizer=lambda p: LARC(p, lr=0.6, weight_decay=0.1))
    at_start = method.prototypes.weight.detach().clone()
    trainer = fit(method, spy)
    steps = trainer.num_training_batches
    assert all(torch.equal(rows, at_start) for rows in spy.prototypes[:steps])
    assert all(buffer is None for buffer in spy.momentum[:steps])
    assert not torch.equal(spy.prototypes[steps], at_start)
    for rows in spy.prototypes:
        assert torch.allclose(rows.norm(dim=1), torch.ones(30), atol=1e-6)


def test_freezing_counts_optimizer_steps_under_accumulation():
    spy = Spy()
    method = swav(freeze_epochs=1.0)
    at_start = method.prototypes.weight.detach().clone()
    fit(method, spy, accumulate_grad_batches=2, batch_size=128, epochs=2)  # 11 batches: 6 steps an epoch
    assert torch.equal(spy.prototypes[10], at_start)
    assert not torch.equal(spy.prototypes[-1], at_start)


@pytest.mark.parametrize(
    ("limit", "accumulate", "steps"),
    [(1.0, 1, 5), (3, 1, 3), (99, 1, 5), (0.5, 1, 2), (0.99, 1, 4), (3, 2, 2), (1, 1, 1)],
)
def test_an_epoch_that_the_trainer_cuts_short_is_as_long_for_schedule_freezing_and_queue(limit, accumulate, steps):
    method = swav(schedule=WarmupCosine(warmup_epochs=1.0), freeze_epochs=1.0)
    trainer = fit(method, limit_train_batches=limit, accumulate_grad_batches=accumulate)
    assert method.steps() == (trainer.global_step, steps) == (2 * steps, steps)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.0  # the cosine has come to its end


def test_accumulation_reports_that_codes_see_micro_batches(caplog):
    fit(swav(), accumulate_grad_batches=2, epochs=1)
    assert any("micro-batch" in message for message in caplog.messages)


def test_the_queue_waits_for_its_epoch_then_until_it_is_full_and_never_holds_the_batch_it_balances():
    spy = Spy()
    method = swav(queue_length=600, queue_start_epoch=1.0, freeze_epochs=99.0)
    fit(method, spy, epochs=3)  # 5 batches of 256 an epoch
    filled = [0 if not rows.numel() else rows.shape[1] for rows in spy.queues]
    assert filled[:5] == [0] * 5
    assert filled[5:8] == [256, 512, 600]
    assert torch.equal(spy.queues[6][0, :256], spy.embeddings[6])
    assert torch.equal(spy.queues[6][0, 256:], spy.embeddings[5])
    rows = spy.prototypes[0]
    for step in (7, 8):  # not full at 7, full at 8; prototypes are frozen, so scores can be made again
        scores = spy.embeddings[step] @ rows.T
        expected = sinkhorn(scores)
        if step == 8:
            expected = sinkhorn(torch.cat([scores, spy.queues[7][0] @ rows.T]))[:256]
        assert torch.allclose(spy.codes[step], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "epochs", "steps", "messages"),
    [
        ({"freeze_epochs": 1.0}, 1, -1, ["prototypes keep their initial values in all of 5 steps"]),
        ({"freeze_epochs": 1.0}, 2, -1, []),
        ({"freeze_epochs": 0.5}, 2, 2, ["prototypes keep their initial values in all of 2 steps"]),
        ({"freeze_epochs": 0.3}, -1, 2, ["prototypes keep their initial values in all of 2 steps"]),
        ({"freeze_epochs": 0.3}, -1, 3, []),
        ({"freeze_steps": 5, "freeze_epochs": 0.0}, 1, -1, ["prototypes keep their initial values in all of 5 steps"]),
        ({"freeze_steps": 4, "freeze_epochs": 99.0}, 1, -1, []),
        ({"queue_length": 600, "queue_start_epoch": 1.0, "freeze_epochs": 0.0}, 1, -1, ["the queue is not used"]),
        ({"queue_length": 600, "queue_start_epoch": 0.4, "freeze_epochs": 0.0}, 1, -1, ["the queue is not used"]),
        ({"queue_length": 600, "queue_start_epoch": 0.2, "freeze_epochs": 0.0}, 1, -1, []),
    ],
)
def test_a_run_that_is_too_short_for_its_prototypes_or_its_queue_is_reported(options, epochs, steps, messages, caplog):
    fit(swav(**options), epochs=epochs, max_steps=steps)
    heard = [message for message in caplog.messages if message.startswith(("prototypes keep", "the queue is"))]
    assert len(heard) == len(messages)
    assert all(message.startswith(start) for message, start in zip(heard, messages, strict=True))


def test_codes_carry_no_gradient():
    assert not alone(swav()).training_step(batch(), 0)["codes"].requires_grad


def test_collapsed_embeddings_cost_the_logarithm_of_k():
    method = alone(swav(projector_norm=False))
    with torch.no_grad():
        method.projector.layers[-1].weight.zero_()
        method.projector.layers[-1].bias.zero_()
    assert float(method.training_step(batch(), 0)["loss"].detach()) == pytest.approx(math.log(30), rel=1e-4)


def test_a_power_law_prior_gives_the_first_prototypes_more():
    method = alone(swav(prior_power=1.0, sinkhorn_iterations=100))
    shares = method.training_step(batch(rows=64), 0)["codes"].mean(0)
    expected = torch.arange(1, 31) ** -1.0
    assert torch.allclose(shares, expected / expected.sum(), atol=1e-3)


def test_without_a_power_codes_are_those_without_a_prior_to_the_bit():
    method = alone(swav())
    step = method.training_step(batch(rows=64), 0)
    assert torch.equal(step["codes"], sinkhorn(step["scores"], method.epsilon, method.sinkhorn_iterations))


def test_the_prior_holds_for_batch_and_queue_together(monkeypatch):
    monkeypatch.setattr(SwAV, "steps_per_epoch", 1)
    method = alone(swav(prior_power=0.5, sinkhorn_iterations=100, queue_length=128, queue_start_epoch=5.0))
    generator = torch.Generator().manual_seed(0)
    method.queue.push(F.normalize(torch.randn(2, 128, 16, generator=generator), dim=2))
    embeddings = F.normalize(torch.randn(64, 16, generator=generator), dim=1)
    scores = method.prototypes(embeddings)
    (codes,) = method.codes([embeddings], [scores])
    both = torch.cat([scores, method.prototypes(method.queue.rows[0])])
    expected = torch.arange(1, 31) ** -0.5
    balanced = sinkhorn(both.detach(), method.epsilon, 100, expected)
    assert torch.allclose(balanced.mean(0), expected / expected.sum(), atol=1e-3)
    assert torch.allclose(codes, balanced[:64], atol=1e-6)


@pytest.mark.parametrize("power", [-1.0, 50.0])
def test_a_prior_that_leaves_nothing_for_the_last_prototypes_is_rejected_at_once(power):
    with pytest.raises(ValueError, match=f"prior_power={power:g}|prior_power={power}"):
        swav(prior_power=power)


def test_bfloat16_leaves_scores_codes_and_loss_in_float32():
    method = alone(swav())
    with torch.autocast("cpu", torch.bfloat16):
        step = method.training_step(batch(), 0)
    assert {step[name].dtype for name in ("loss", "embeddings", "scores", "codes")} == {torch.float32}


def test_one_view_is_rejected_before_the_first_step():
    with pytest.raises(ValueError, match="needs at least 2"):
        fit(swav(), views=(View(**PLAIN),))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_in_half_precision_are_rejected_in_one_line(precision):
    with pytest.raises(ValueError, match=rf"found trainer.precision={precision}.*bf16-mixed"):
        fit(swav(), precision=precision)


@pytest.mark.parametrize("name", sorted(OUT_OF_RANGE))
def test_a_number_out_of_range_is_named(name):
    with pytest.raises(ValueError, match=name):
        swav(**{name: OUT_OF_RANGE[name]})


def test_it_embeds_with_the_backbone_or_the_projector():
    method = swav().eval()
    images = batch().views[0]
    assert method.embed(images).shape == (12, 64)
    projected = method.embed(images, layer="projector")
    assert torch.allclose(projected.norm(dim=1), torch.ones(12), atol=1e-5)
    with pytest.raises(ValueError, match="backbone, hidden, projector"):
        method.embed(images, layer="head")


def test_it_learns_on_real_digits():
    losses = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"].detach()))

    method = swav(optimizer=lambda p: torch.optim.Adam(p, lr=1e-3), freeze_epochs=0.5)
    fit(method, Losses(), epochs=6, batch_size=64)
    assert sum(losses[-10:]) / 10 < math.log(30) - 0.4
