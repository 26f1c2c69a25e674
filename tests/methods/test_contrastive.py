"""SimCLR, BYOL and MoCLR: steps written out, the average from momentum 0 to 1, who learns, and what is evaluated."""

import math
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.nn import functional as F

from ssl_lightning import load_model
from ssl_lightning.callbacks import DiagnosticSignals, ProbeFeatures
from ssl_lightning.data import Digits, View
from ssl_lightning.evaluation import KNN
from ssl_lightning.methods import BYOL, MoCLR, SimCLR
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.types import Batch

PLAIN = {"scale": (0.5, 1.0), "horizontal_flip": 0.0, "color_jitter": (0.0, 0.0, 0.0, 0.0), "grayscale": 0.0}
TWO = View(count=2, **PLAIN)
SMALL = {"backbone": ResNet18(8), "hidden": (32,), "projection": 16, "preprocessing": Preprocessing(16)}
BYOLS = {"predictor_hidden": (32,)}
EVERY = {SimCLR: {}, BYOL: BYOLS, MoCLR: {}}
AVERAGING = {BYOL: BYOLS, MoCLR: {}}


def made(kind, **options):
    pl.seed_everything(0, verbose=False)
    return kind(**(SMALL | EVERY[kind] | options))


def fit(method, *callbacks, views=(TWO,), batch_size=64, **options):
    data = Digits(batch_size=batch_size, views=list(views), image_size=16)
    defaults = {"max_epochs": 1, "limit_train_batches": 5, "limit_val_batches": 0, "enable_checkpointing": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **(defaults | options),
    )
    trainer.fit(method, data)
    return trainer


def batch(rows=12):
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(rows, 3, 16, 16, generator=generator) for _ in range(2)]
    return Batch(torch.arange(rows), views, torch.full((rows,), -1))


def moved(method):
    """A method whose average is no longer equal to it."""
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method


def averaged(method):
    return {name: value.clone() for name, value in method.teacher.network.state_dict().items()}


def online(method):
    return torch.nn.Sequential(method.backbone, method.projector).state_dict()


def unit(rows):
    return F.normalize(rows.double(), dim=1)


def nt_xent(z1, z2, temperature):
    z = torch.cat([unit(z1), unit(z2)])
    scores = (z @ z.T / temperature).exp()
    pairs = torch.arange(len(z)).roll(len(z1))
    positives = scores[torch.arange(len(z)), pairs]
    return -(positives / (scores.sum(1) - scores.diagonal())).log().mean()


def contrast(q, k, temperature):
    scores = (unit(q) @ unit(k).T / temperature).exp()
    return -(scores.diagonal() / scores.sum(1)).log().mean()


def written_out(method, views):
    """The paper's loss, with networks called one view at a time where the paper calls them so."""
    first, second = views
    if isinstance(method, SimCLR):
        together = method.projector(method.backbone(torch.cat([first, second])))
        return nt_xent(*together.chunk(2), method.temperature)
    z1, z2 = (method.projector(method.backbone(view)) for view in (first, second))
    with torch.no_grad():
        backbone, projector = method.teacher.network
        k1, k2 = (projector(backbone(view)) for view in (first, second))
    if isinstance(method, BYOL):
        p1, p2 = method.predictor(z1), method.predictor(z2)
        return sum((2 - 2 * (unit(p) * unit(k)).sum(1)).mean() for p, k in ((p1, k2), (p2, k1)))
    return contrast(z1, k2, method.temperature) + contrast(z2, k1, method.temperature)


@pytest.mark.parametrize("kind", EVERY)
def test_a_step_is_the_paper_written_out_in_value_and_gradient(kind):
    method = made(kind)
    method = moved(method) if method.keeps_average else method
    names, tensors = zip(*((n, p) for n, p in method.named_parameters() if p.requires_grad), strict=True)
    loss = method.training_step(batch(), 0)["loss"]
    ours = torch.autograd.grad(loss, tensors)
    expected = written_out(method, batch().views)
    theirs = torch.autograd.grad(expected, tensors)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, own, slow in zip(names, ours, theirs, strict=True):
        assert torch.allclose(own, slow, atol=1e-5, rtol=1e-3), name


@pytest.mark.parametrize("kind", AVERAGING)
def test_the_average_has_no_gradient_and_no_place_in_the_optimizer(kind):
    method = made(kind)
    before = averaged(method)
    trainer = fit(method, max_steps=1, max_epochs=-1)
    optimized = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in method.teacher.parameters()}
    assert len(optimized) == sum(p.requires_grad for p in method.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert before.keys() == online(method).keys()


class Recorder(pl.Callback):
    """Online and averaged weights after every step, as they are when a checkpoint is written."""

    def __init__(self):
        self.online, self.averaged = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.online.append({name: value.clone() for name, value in online(pl_module).items()})
        self.averaged.append(averaged(pl_module))


@pytest.mark.parametrize("kind", AVERAGING)
def test_the_average_follows_after_every_update_with_a_momentum_that_rises_to_1(kind):
    method, recorder = made(kind, momentum=0.9), Recorder()
    now = averaged(method)
    fit(method, recorder)
    weights = [name for name, _ in method.teacher.network.named_parameters()]
    for step, (net, after) in enumerate(zip(recorder.online, recorder.averaged, strict=True)):
        tau = 1 - (1 - 0.9) * (math.cos(math.pi * step / 5) + 1) / 2
        now = {name: tau * now[name] + (1 - tau) * net[name] for name in weights}
        for name in weights:
            assert torch.allclose(after[name], now[name], atol=1e-5), (step, name)


@pytest.mark.parametrize("kind", AVERAGING)
def test_a_momentum_of_1_leaves_the_weights_as_they_were_and_of_0_copies_all_in_the_first_step(kind):
    still, copied = made(kind, momentum=1.0), made(kind, momentum=0.0)
    before = averaged(still)
    fit(still)
    assert all(torch.equal(p, before[name]) for name, p in still.teacher.network.named_parameters())
    fit(copied, max_steps=1, max_epochs=-1)
    after, wanted = averaged(copied), online(copied)
    assert all(torch.equal(after[name], wanted[name]) for name in wanted)  # running statistics too


@pytest.mark.parametrize("kind", AVERAGING)
def test_the_average_follows_optimizer_steps_under_accumulation(kind):
    method, recorder = made(kind, momentum=0.0), Recorder()
    fit(method, recorder, accumulate_grad_batches=2, max_steps=1, max_epochs=-1)
    weights = [name for name, _ in method.teacher.network.named_parameters()]
    start, end = recorder.averaged[0], recorder.averaged[-1]
    assert all(torch.equal(start[name], recorder.online[0][name]) for name in weights)  # nothing has been updated
    assert any(not torch.equal(start[name], end[name]) for name in weights)
    assert all(torch.equal(end[name], recorder.online[-1][name]) for name in weights)


@pytest.mark.parametrize("kind", AVERAGING)
def test_running_statistics_are_those_of_the_average(kind):
    method = made(kind)
    before = averaged(method)
    fit(method)
    after = averaged(method)
    changed = [name for name in before if "running" in name and not torch.equal(before[name], after[name])]
    assert changed == [name for name in before if "running" in name]


@pytest.mark.parametrize("kind", AVERAGING)
def test_a_checkpoint_brings_both_networks_back(kind, tmp_path):
    method = made(kind)
    trainer = fit(method)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    restored = load_model(tmp_path / "last.ckpt")
    method.eval()
    images = batch().views[0]
    for weights in ("online", "ema"):
        for layer in method.layers:
            ours, theirs = (net.embed(images, layer, weights) for net in (method, restored))
            assert torch.equal(ours, theirs)
    assert not torch.equal(restored.embed(images), restored.embed(images, weights="ema"))


@pytest.mark.parametrize("kind", EVERY)
def test_it_embeds_with_the_backbone_the_hidden_layer_or_unit_embeddings(kind):
    method = made(kind).eval()
    images = batch().views[0]
    assert method.layers == ("backbone", "hidden", "projector")
    assert method.embed(images).shape == (12, 64)
    hidden = method.embed(images, layer="hidden")
    assert hidden.shape == (12, 32)
    assert hidden.min() >= 0  # after the ReLU
    projected = method.embed(images, layer="projector")
    assert torch.allclose(projected.norm(dim=1), torch.ones(12), atol=1e-5)
    last = method.projector.layers[-1 if kind is not MoCLR else -2]
    rest = method.projector.layers[-1](last(hidden)) if kind is MoCLR else last(hidden)
    assert torch.allclose(F.normalize(rest, dim=1), projected, atol=1e-5)


def test_simclr_has_no_average_to_embed_with():
    with pytest.raises(ValueError, match="SimCLR keeps no averaged weights"):
        made(SimCLR).embed(batch().views[0], weights="ema")


@pytest.mark.parametrize("kind", EVERY)
def test_averaged_weights_are_evaluated_beside_the_online_ones(kind):
    method = made(kind)
    trainer = fit(method, ProbeFeatures([KNN()]), limit_val_batches=1.0)
    names = set(trainer.callback_metrics)
    assert {"eval/knn/top1", "eval/rankme"} <= names
    assert ("eval_ema/knn/top1" in names) == ("eval_ema/rankme" in names) == method.keeps_average
    if method.keeps_average:
        assert trainer.callback_metrics["eval_ema/knn/top1"] != trainer.callback_metrics["eval/knn/top1"]


def collapsed(method):
    """Every embedding the same, of either network."""
    with torch.no_grad():
        for projector in [method.projector, *([method.teacher.network[1]] if method.keeps_average else [])]:
            projector.layers[-1].weight.zero_()
            projector.layers[-1].bias.fill_(1.0)
    return method


@pytest.mark.parametrize("kind", [SimCLR, MoCLR])
def test_embeddings_that_are_all_equal_cost_what_chance_does(kind):
    method = made(kind)
    fit(method, max_steps=1, max_epochs=-1)
    chance = math.log(127) if kind is SimCLR else 2 * math.log(64)
    assert method.chance_loss == pytest.approx(chance)
    loss = collapsed(method).training_step(batch(64), 0)["loss"]
    assert float(loss.detach()) == pytest.approx(chance, abs=1e-4)


def test_byol_knows_no_chance():
    method = made(BYOL)
    fit(method, max_steps=1, max_epochs=-1)
    assert method.chance_loss is None


def test_the_projector_of_moclr_ends_in_batch_normalization_and_those_of_the_others_do_not():
    last = {kind: type(made(kind).projector.layers[-1]) for kind in EVERY}
    assert last == {SimCLR: torch.nn.Linear, BYOL: torch.nn.Linear, MoCLR: torch.nn.BatchNorm1d}
    z = made(MoCLR).projector(torch.randn(64, 64))
    assert torch.allclose(z.mean(0), torch.zeros(16), atol=1e-5)


@pytest.mark.parametrize("kind", EVERY)
def test_bfloat16_leaves_loss_and_embeddings_in_float32(kind):
    with torch.autocast("cpu", torch.bfloat16):
        step = made(kind).training_step(batch(), 0)
    assert {step["loss"].dtype, step["embeddings"].dtype} == {torch.float32}
    assert not step["embeddings"].requires_grad


@pytest.mark.parametrize("kind", EVERY)
def test_parameters_spread_over_processes_are_rejected_where_an_average_is_kept(kind):
    method = made(kind)
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    method._trainer = Mock(spec=pl.Trainer, strategy=strategy, precision="32-true", datamodule=None)
    if method.keeps_average:
        with pytest.raises(ValueError, match=rf"found ModelParallelStrategy with {kind.__name__}.*strategy ddp"):
            method.setup("fit")
    else:
        method.setup("fit")


@pytest.mark.parametrize("kind", EVERY)
def test_one_view_is_rejected_before_the_first_step(kind):
    with pytest.raises(ValueError, match="needs at least 2"):
        fit(made(kind), views=(View(**PLAIN),))


@pytest.mark.parametrize("kind", EVERY)
def test_accumulation_is_spoken_of_where_the_loss_compares_images(kind, caplog):
    fit(made(kind), accumulate_grad_batches=2, max_steps=1, max_epochs=-1)
    assert any("micro-batch" in message for message in caplog.messages) == (kind is not BYOL)


def test_a_number_out_of_range_is_named():
    for kind in (SimCLR, MoCLR):
        with pytest.raises(ValueError, match=r"model\.temperature=0"):
            made(kind, temperature=0.0)
    for kind in AVERAGING:
        with pytest.raises(ValueError, match=r"momentum of 1\.5"):
            made(kind, momentum=1.5)


class Losses(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(float(outputs["loss"].detach()))


@pytest.mark.parametrize("kind", EVERY)
def test_it_learns_on_real_digits_without_collapse(kind):
    options = {"momentum": 0.9} if kind is not SimCLR else {}
    method, losses = made(kind, optimizer=lambda p: torch.optim.Adam(p, lr=2e-3), **options), Losses()
    trainer = fit(method, losses, DiagnosticSignals(), max_epochs=4, limit_train_batches=1.0, log_every_n_steps=10)
    chance = {SimCLR: math.log(127), MoCLR: 2 * math.log(64), BYOL: losses.seen[0]}[kind]
    assert sum(losses.seen[-10:]) / 10 < 0.8 * chance
    assert float(trainer.callback_metrics["train/embedding_std"]) > 0.1
