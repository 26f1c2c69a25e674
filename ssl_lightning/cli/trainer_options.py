"""Options of Lightning's trainer that are not supported, or not with these values: one line before anything runs."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace

from ssl_lightning.data import ImageModule
from ssl_lightning.errors import UsageError
from ssl_lightning.methods.checks import PRECISIONS

PRECISION_NAMES = {*PRECISIONS, "32", "16", "bf16"}
"""The precisions that methods admit, with Lightning's short names."""
REJECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "overfit_batches": (
        bool,
        "which is not supported: to check that a network learns a few images by heart, train on a folder of those",
    ),
    "fast_dev_run": (
        bool,
        "which is not supported, since a run of this package resumes and finishes: for a trial, give "
        "--trainer.max_steps 2 --trainer.limit_val_batches 1 and a --run.name of its own",
    ),
    "barebones": (bool, "which is not supported, since every run writes metrics and checkpoints: leave it out"),
    "use_distributed_sampler": (
        bool,
        "which is not supported, since the data module shards batches over ranks itself: leave it out",
    ),
    "precision": (
        lambda value: str(value) not in PRECISION_NAMES,
        "expected 32-true, bf16-mixed or 16-mixed: images are float32, and unit vectors and memory banks lose their "
        "length in half precision",
    ),
    "gradient_clip_val": (
        lambda value: value < 0,
        "with which Lightning clips nothing: expected a positive number, or null",
    ),
    "accumulate_grad_batches": (lambda value: value < 1, "expected a number of batches, 1 for one a step"),
    "val_check_interval": (
        lambda value: isinstance(value, int | float) and value <= 0,
        "expected a fraction of an epoch or a number of batches above 0; --trainer.limit_val_batches 0 leaves "
        "evaluation out",
    ),
    "num_sanity_val_steps": (lambda value: value < -1, "expected a number of batches, or -1 for all"),
    "min_epochs": (lambda value: value < 0, "expected a number of epochs"),
    "min_steps": (lambda value: value < 0, "expected a number of steps"),
    "log_every_n_steps": (lambda value: value < 0, "expected a number of steps, or 0 for no rows of training metrics"),
    "check_val_every_n_epoch": (
        lambda value: value < 1,
        "expected 1 or more, or null with --trainer.val_check_interval in steps; --trainer.limit_val_batches 0 leaves "
        "evaluation out",
    ),
    "max_epochs": (lambda value: value < -1, "expected a number of epochs, or -1 with --trainer.max_steps"),
    "max_steps": (lambda value: value < -1, "expected a number of steps, or -1 for all steps of --trainer.max_epochs"),
}
"""By option: which values are rejected, and the rest of the line."""
NOTHING_TRAINED = ("max_epochs", "max_steps", "limit_train_batches")
"""Options of `fit` with which no step is taken if they are 0."""
METRICS = ("train/", "cluster/", "eval/", "eval_ema/", "data/", "doctor/")
"""First parts of the names of metrics; see the documentation."""


def check_options(subcommand: str, options: Namespace) -> None:
    """Reject values that would not have the effect that the trainer's documentation describes.

    Args:
        subcommand: `fit`, `validate`, `test` or `predict`.
        options: Of the trainer, as parsed.

    Raises:
        UsageError: For the first such value.
    """
    for name, (is_rejected, rest) in REJECTED.items():
        value = options.get(name)
        if value is not None and is_rejected(value):
            raise UsageError(f"found trainer.{name}={value}, {rest}")
    for name in NOTHING_TRAINED if subcommand == "fit" else ():
        if options[name] is not None and options[name] == 0:
            raise UsageError(f"found --trainer.{name} {options[name]}, with which nothing is trained: give 1 or more")
    if options.max_epochs == -1 and options.max_steps == -1:
        raise UsageError(
            "found --trainer.max_epochs -1 and no --trainer.max_steps, a run without an end: give one of them"
        )


def check_interval(options: Namespace, datamodule: ImageModule) -> None:
    """Reject an evaluation every so many batches of an epoch that has fewer.

    Args:
        options: Of the trainer, as parsed.
        datamodule: Set up to fit.

    Raises:
        UsageError: If so.
    """
    interval, limit = options.val_check_interval, options.limit_train_batches
    if not isinstance(interval, int) or options.check_val_every_n_epoch is None or options.limit_val_batches == 0:
        return
    batches = datamodule.batches_per_epoch
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
    if interval > batches:
        raise UsageError(
            f"found --trainer.val_check_interval {interval} and epochs of {batches} batches: give fewer, or "
            "--trainer.check_val_every_n_epoch null to count steps over epochs"
        )


def check_monitored(trainer: pl.Trainer) -> None:
    """Reject callbacks that wait for a metric which no run has, such as `val_loss`.

    Args:
        trainer: After the first evaluation, if this run has one.

    Raises:
        UsageError: Names the metric and the nearest of those that were measured.
    """
    measured = sorted(name for name in trainer.callback_metrics if name.startswith(METRICS))
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    for callback in callbacks:
        if (patience := getattr(callback, "patience", 0)) < 0:
            raise UsageError(f"found {type(callback).__name__} with patience={patience}; expected 0 or more")
        name = getattr(callback, "monitor", None)
        if not isinstance(name, str) or name in measured:
            continue
        is_evaluation = name.startswith(("eval/", "eval_ema/"))
        if is_evaluation and trainer.limit_val_batches == 0:
            raise UsageError(
                f"found {type(callback).__name__} with monitor={name}, but nothing is evaluated: give labeled images, "
                "or --trainer.limit_val_batches above 0"
            )
        evaluated = is_evaluation and measured
        if evaluated or not name.startswith(METRICS):
            close = get_close_matches(name, measured, n=3, cutoff=0.3) or measured[:3]
            suggestion = ", ".join([*close, *(["train/loss"] if not evaluated else [])])
            raise UsageError(
                f"found {type(callback).__name__} with monitor={name}, a metric that this run does not log; expected a "
                f"metric such as {suggestion}"
            )
