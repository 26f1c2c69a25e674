"""Schedules against torch's own, by hand, and through the trainer."""

import lightning.pytorch as pl
import pytest
import torch

from ssl_lightning.callbacks import Recluster
from ssl_lightning.clustering import KMeans
from ssl_lightning.data import Digits
from ssl_lightning.methods import DeepCluster
from ssl_lightning.models import Preprocessing, ResNet18
from ssl_lightning.optim import MultiStep, WarmupCosine


def test_the_cosine_is_that_of_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.1)
    ours = WarmupCosine(end=0.1)
    for step in range(40):
        assert ours(step, 40, 10) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_the_warm_up_is_a_line_from_its_start_and_meets_the_cosine_at_the_full_rate():
    schedule = WarmupCosine(warmup_epochs=2.0, start=0.2)
    factors = [schedule(step, 100, 10) for step in range(101)]
    assert factors[0] == pytest.approx(0.2)
    assert factors[10] == pytest.approx(0.6)
    assert factors[20] == 1.0
    assert max(factors) == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0, abs=1e-12)


def test_after_its_end_and_with_nothing_but_warm_up_it_stays_within_bounds():
    assert WarmupCosine(end=0.05)(1000, 100, 10) == pytest.approx(0.05)
    assert WarmupCosine(warmup_epochs=50.0)(99, 100, 10) == pytest.approx(0.99)


def test_drops_are_those_of_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[12, 25], gamma=0.1)
    ours = MultiStep(epochs=(1.2, 2.5))
    for step in range(40):
        assert ours(step, 40, 10) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_drops_of_a_run_of_another_length_come_after_the_same_share_of_it():
    meant, short = MultiStep(epochs=(160.0, 187.0)), MultiStep(epochs=(160.0, 187.0), of=200.0)
    factors = [short(step, 200, 10) for step in range(200)]  # 20 epochs of ten steps
    assert factors == [meant(10 * step, 2000, 10) for step in range(200)]
    assert [factors.index(factor) for factor in sorted(set(factors), reverse=True)] == [0, 160, 187]
    assert [short(step, 2000, 10) for step in range(2000)] == [meant(step, 2000, 10) for step in range(2000)]


def test_a_shorter_run_warms_up_for_the_same_share_of_it_so_before_its_first_drop():
    schedule = MultiStep(epochs=(30.0, 60.0), of=105.0, warmup_epochs=5.0, start=0.25)
    factors = [schedule(step, 1050, 105) for step in range(1050)]  # 10 epochs
    assert factors == [
        MultiStep(epochs=(30.0, 60.0), warmup_epochs=5.0, start=0.25)(step, 1050, 10) for step in range(1050)
    ]
    assert (factors[0], factors[50], factors[299], factors[300]) == (0.25, 1.0, 1.0, pytest.approx(0.1))


@pytest.mark.parametrize("of", [0.0, 160.0])
def test_drops_after_the_end_of_the_run_that_they_are_meant_for_are_rejected(of):
    with pytest.raises(ValueError, match="expected of, the length of a run"):
        MultiStep(of=of)


def test_drops_may_follow_a_warm_up_that_is_a_line_from_its_start_to_the_full_rate():
    schedule = MultiStep(epochs=(3.0, 4.0), factor=0.5, warmup_epochs=2.0, start=0.2)
    factors = [schedule(step, 50, 10) for step in range(50)]
    assert factors[:20] == pytest.approx([0.2 + 0.8 * step / 20 for step in range(20)])
    assert factors[20:] == [1.0] * 10 + [0.5] * 10 + [0.25] * 10


@pytest.mark.parametrize("options", [{"warmup_epochs": -1.0}, {"warmup_epochs": 130.0}, {"start": 1.5}])
def test_a_warm_up_before_drops_that_makes_no_sense_is_rejected(options):
    with pytest.raises(ValueError, match=r"expected (warmup_epochs|start)"):
        MultiStep(**options)


@pytest.mark.parametrize("options", [{"epochs": (3.0, 2.0)}, {"epochs": (-1.0,)}, {"factor": 0.0}])
def test_drops_that_make_no_sense_are_rejected(options):
    with pytest.raises(ValueError, match="expected ascending epochs"):
        MultiStep(**options)


@pytest.mark.parametrize("options", [{"warmup_epochs": -1.0}, {"start": 1.5}, {"end": -0.1}])
def test_settings_that_make_no_sense_are_rejected(options):
    with pytest.raises(ValueError, match="expected warmup_epochs of at least 0"):
        WarmupCosine(**options)


@pytest.mark.parametrize(
    ("options", "total"),
    [({"max_epochs": 2}, 8), ({"max_steps": 6}, 6), ({"max_epochs": 3, "accumulate_grad_batches": 3}, 6)],
)
def test_epochs_are_turned_into_optimizer_steps_from_the_data(options, total):
    rates = []

    class Note(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rates.append([group["lr"] for group in optimizer.param_groups])

    model = DeepCluster(12, ResNet18(width=4), schedule=WarmupCosine(), preprocessing=Preprocessing(8))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[Recluster(KMeans()), Note()],
        limit_val_batches=0,
        enable_progress_bar=False,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        **quiet,
        **options,
    )
    trainer.fit(model, datamodule=Digits(batch_size=359, image_size=8))  # four batches an epoch
    assert len(rates) == total
    expected = [0.05 * WarmupCosine()(step, total, 4) for step in range(total)]
    assert [body for body, _ in rates] == pytest.approx(expected)
    assert [head for _, head in rates] == pytest.approx(expected)


def test_a_run_without_an_end_has_no_schedule():
    model = DeepCluster(12, ResNet18(width=4), schedule=WarmupCosine(), preprocessing=Preprocessing(8))
    trainer = pl.Trainer(accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="found a schedule in a run without an end"):
        trainer.fit(model, datamodule=Digits(batch_size=256, image_size=8))
