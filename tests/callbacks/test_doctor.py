"""The doctor on scripted rows, and the signs that it reads against closed forms."""

import logging
from types import SimpleNamespace
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch

from ssl_lightning.callbacks import DiagnosticSignals, Doctor, diagnostic_signals
from ssl_lightning.callbacks.mean_vector import MeanVector
from ssl_lightning.errors import CollapseError
from ssl_lightning.evaluation import feature_std, participation_ratio
from ssl_lightning.failures import Failure, one_cluster, queue_blow_up, stuck_at_chance

FAILURES = [
    stuck_at_chance("--model.epsilon 0.03"),
    queue_blow_up("--model.queue_start_epoch 5"),
    one_cluster("fewer clusters"),
]
OVER_CHANCE = "train/loss_over_chance"


class Patient(pl.LightningModule):
    """Names its failures."""

    def failures(self) -> list[Failure]:
        return FAILURES


def trainer(**metrics):
    return Mock(
        spec=pl.Trainer,
        global_step=0,
        current_epoch=0,
        log_every_n_steps=10,
        accumulate_grad_batches=1,
        world_size=1,
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
        loggers=[],
    )


def attend(doctor, rows, start=0):
    """Rows of metrics, one every ten steps; `doctor/` of each."""
    trend, patient = trainer(), Patient()
    rates = []
    for place, row in enumerate(rows):
        trend.global_step = start + 10 * (place + 1)
        trend.callback_metrics |= {name: torch.tensor(float(value)) for name, value in row.items()}
        doctor.on_train_batch_end(trend, patient, {}, None, 0)
        rates.append({name: float(trend.callback_metrics[f"doctor/{name}"]) for name in doctor.found})
    return rates


def test_a_failure_is_said_once_after_patience_and_once_when_it_is_over(caplog):
    rows = [{OVER_CHANCE: 1.0}] * 30 + [{OVER_CHANCE: 0.9}] * 12
    with caplog.at_level(logging.WARNING, "ssl_lightning"):
        rates = attend(Doctor(), rows)
    found = [row["stuck_at_chance"] for row in rates]
    assert found[:19] == [0.0] * 19  # steps 10 to 190
    assert found[19:30] == [1.0] * 11
    assert found[-1] == 0.0
    first, last = [record.message for record in caplog.records]
    assert "stuck_at_chance at step 200" in first
    assert "Try --model.epsilon 0.03" in first
    assert last == "doctor: stuck_at_chance is over at step 310"


def test_a_failure_is_passed_to_the_listeners_when_it_appears_with_its_line():
    doctor, heard = Doctor(), []
    doctor.listeners.append(lambda name, line: heard.append((name, line)))
    attend(doctor, [{OVER_CHANCE: 1.0}] * 30 + [{OVER_CHANCE: 0.9}] * 12)
    ((name, line),) = heard
    assert name == "stuck_at_chance"
    assert line.startswith("doctor: stuck_at_chance at step 200: ")
    assert "--model.epsilon 0.03" in line


@pytest.mark.parametrize("fall", [0.01, 0.005, 0.002])
def test_a_loss_on_its_way_past_chance_is_not_stuck(fall, caplog):
    rows = [{OVER_CHANCE: 1 + 30 * fall - fall * place} for place in range(60)]
    assert not any(any(row.values()) for row in attend(Doctor(), rows))
    assert not caplog.records


@pytest.mark.parametrize("leap", [-0.3, 0.3])
def test_a_queue_is_compared_with_what_was_before_it(leap):
    before = [{OVER_CHANCE: 0.9, "train/queue_in_use": 0}] * 30
    after = [{OVER_CHANCE: 0.9 + leap, "train/queue_in_use": 1}] * 12
    rates = [row["queue_blow_up"] for row in attend(Doctor(), before + after)]
    assert not any(rates[:32])  # three rows are the fewest that are looked at
    assert all(rates[32:])


def test_a_queue_that_changes_little_is_well():
    before = [{OVER_CHANCE: 0.9, "train/queue_in_use": 0}] * 30
    after = [{OVER_CHANCE: 0.88, "train/queue_in_use": 1}] * 12
    assert not any(row["queue_blow_up"] for row in attend(Doctor(), before + after))


def falling(start, by, rows, queue):
    return [{OVER_CHANCE: start - by * place, "train/queue_in_use": queue} for place in range(rows)]


HEALTHY = {
    "a long fall": falling(0.95, 5e-4, 100, 0) + falling(0.9, 5e-4, 200, 1),
    "steep before and after": falling(1.0, 4e-3, 25, 0) + falling(0.9, 4e-3, 40, 1),
    "steep before and slower after": falling(1.0, 4e-3, 25, 0) + falling(0.9, 5e-4, 200, 1),
    "learning sets in": falling(0.99, 0, 30, 0) + falling(0.99, 4e-3, 40, 1) + falling(0.83, 0, 40, 1),
    "in use from the first row": falling(1.2, 1e-2, 30, 1) + falling(0.9, 5e-4, 200, 1),
    "in use after two rows": falling(1.2, 5e-2, 2, 0) + falling(1.1, 5e-3, 40, 1) + falling(0.9, 5e-4, 200, 1),
}


@pytest.mark.parametrize("trend", HEALTHY)
def test_a_run_with_a_queue_that_learns_on_is_left_in_peace(trend, caplog):
    assert not any(row["queue_blow_up"] for row in attend(Doctor(), HEALTHY[trend]))
    assert not caplog.records


@pytest.mark.parametrize("leap", [-0.3, 0.1])
def test_a_leap_shows_also_in_a_run_that_falls_and_is_over_some_hundred_steps_later(leap):
    rates = attend(Doctor(), falling(1.0, 1e-3, 50, 0) + falling(0.95 + leap, 1e-3, 100, 1))
    found = [row["queue_blow_up"] for row in rates]
    assert not any(found[:52])
    assert all(found[52:70])
    assert not any(found[81:])


def test_stop_ends_the_run_with_the_suggestion():
    with pytest.raises(CollapseError, match=r"one_cluster.*80% of the images.*Try fewer clusters") as stopped:
        attend(Doctor("stop"), [{"cluster/largest_share": 0.8}] * 21)
    assert stopped.value.exit_code == 76


def test_a_resumed_doctor_knows_what_the_first_one_saw():
    before = [{OVER_CHANCE: 0.9, "train/queue_in_use": 0}] * 30
    after = [{OVER_CHANCE: 1.2, "train/queue_in_use": 1}] * 12
    whole = attend(Doctor(), before + after)
    for cut in (5, 25, 31, 33, 38):
        first, second = Doctor(), Doctor()
        start = attend(first, (before + after)[:cut])
        second.load_state_dict(first.state_dict())
        assert start + attend(second, (before + after)[cut:], start=10 * cut) == whole


def test_methods_without_known_failures_are_left_alone():
    trend = trainer()
    trend.global_step = 10
    Doctor().on_train_batch_end(trend, pl.LightningModule(), {}, None, 0)
    assert not trend.callback_metrics


@pytest.mark.parametrize("dim", [2, 16, 64])
def test_participation_ratio_counts_directions(dim):
    axes = torch.cat([torch.eye(dim), -torch.eye(dim)])
    assert participation_ratio(axes) == pytest.approx(dim, rel=1e-5)
    line = torch.eye(dim)[:1] * torch.tensor([[1.0], [-1.0], [2.0], [-3.0]])
    assert participation_ratio(line) == pytest.approx(1, rel=1e-5)
    assert (
        participation_ratio(torch.ones(8, dim)) == pytest.approx(0, abs=1e-5) or feature_std(torch.ones(8, dim)) < 1e-6
    )
    few = torch.randn(dim // 2 + 2, dim, generator=torch.Generator().manual_seed(0))
    unit = few / few.norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(torch.cov(unit.T, correction=0).double())
    assert participation_ratio(few) == pytest.approx(float(values.sum() ** 2 / values.square().sum()), rel=1e-4)


def measure(signs, trend, outputs, views=None):
    views = torch.randn(4, 3, 8, 8) if views is None else views
    signs.on_train_batch_end(trend, Patient(), outputs, SimpleNamespace(views=[views]), 0)
    return {name: float(value) for name, value in trend.callback_metrics.items()}


def test_even_use_of_prototypes_reads_one_and_a_single_one_nearly_nothing():
    generator = torch.Generator().manual_seed(0)
    even, single = DiagnosticSignals(), DiagnosticSignals()
    for step in range(1, 101):
        trend = trainer()
        trend.global_step = step
        random = measure(even, trend, {"scores": torch.randn(16, 512, generator=generator)})
        trend.callback_metrics.clear()
        alone = measure(single, trend, {"scores": torch.eye(512)[:1].expand(16, 512)})
    assert random["train/prototypes_used"] == pytest.approx(1, abs=0.03)
    assert alone["train/prototypes_used"] == pytest.approx(1 / 512 / (1 - (1 - 1 / 512) ** 1600), rel=1e-6)


def test_a_prototype_counts_as_used_for_a_hundred_steps():
    signs = DiagnosticSignals()
    trend = trainer()
    trend.global_step = 10
    measure(signs, trend, {"scores": torch.eye(4)[[0, 1, 2]]})
    trend.global_step = 100
    measure(signs, trend, {"scores": torch.eye(4)[[3, 3, 3]]})
    assert float(trend.callback_metrics["train/prototypes_used"]) == pytest.approx(1, abs=1e-6)
    trend.global_step = 110
    measure(signs, trend, {"scores": torch.eye(4)[[3, 3, 3]]})
    assert float(trend.callback_metrics["train/prototypes_used"]) == pytest.approx(0.25, abs=1e-6)


def test_codes_inputs_and_loss_are_read_as_shares():
    trend = trainer(**{"train/loss": 3.0})
    trend.global_step = 10
    patient = Patient()
    patient.chance_loss = 6.0
    views = torch.full((4, 3, 8, 8), 0.7)
    batch = SimpleNamespace(views=[views])
    DiagnosticSignals().on_train_batch_end(trend, patient, {"codes": torch.full((4, 8), 1 / 8)}, batch, 0)
    found = {name: float(value) for name, value in trend.callback_metrics.items()}
    assert found["train/code_entropy"] == pytest.approx(1, abs=1e-6)
    assert found["train/loss_over_chance"] == 0.5
    assert found["train/input_offset"] == pytest.approx(1, abs=1e-6)  # constant images: the standard deviation is 0


def test_signs_are_means_in_one_reduction_and_each_row_begins_anew():
    first, second = torch.tensor([1.0, 5.0]), torch.tensor([3.0, 6.0])
    processes = [MeanVector(2), MeanVector(2)]
    for mean, signs in zip(processes, (first, second), strict=True):
        mean.update(signs)
        assert mean.compute().tolist() == signs.tolist()
    assert list(processes[0]._defaults) == ["total"]  # so one reduction
    processes[0].total += processes[1].total  # what it does
    processes[0]._computed = None
    assert processes[0].compute().tolist() == [2.0, 5.5]
    signs, trend = DiagnosticSignals(), trainer()
    for rows in (0.5, 0.25, 0.125):
        trend.global_step += 10
        assert measure(signs, trend, {"rows_per_prototype": rows})["train/rows_per_prototype"] == rows
    with_codes = measure(signs, trend, {"codes": torch.eye(4), "rows_per_prototype": 1.0})
    assert (with_codes["train/code_entropy"], with_codes["train/rows_per_prototype"]) == (0.0, 1.0)


def test_processes_tell_each_other_about_prototypes_where_their_models_are_and_nothing_without_any(monkeypatch):
    """Groups of GPUs reduce nothing that lies on the CPU."""
    reduced = []
    monkeypatch.setattr(diagnostic_signals, "world", lambda: "all")
    monkeypatch.setattr(
        diagnostic_signals.dist, "all_reduce", lambda tensor, op, group: reduced.append(tensor.device.type)
    )
    signs, trend = DiagnosticSignals(), trainer()
    signs.on_train_start(trend, Patient())
    assert len(signs.state_dict()["last_used"]) == 0
    assert reduced == []
    signs.load_state_dict({"last_used": torch.zeros(5, dtype=torch.int64)})
    signs.on_train_start(trend, Patient().to("meta"))
    signs.state_dict()
    assert reduced == ["meta"]
