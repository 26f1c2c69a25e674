"""What a run starts from: a checkpoint to resume from, or weights alone; and whether they fit the run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch

from ssl_lightning.checkpoints import read_checkpoint
from ssl_lightning.checkpoints.networks import find_misfit, take_weights
from ssl_lightning.checkpoints.read import has_sidecar
from ssl_lightning.errors import DataError, RunStoppedError, UsageError
from ssl_lightning.files import sha256_of
from ssl_lightning.methods import Method
from ssl_lightning.runs.initial_weights import without_initial_weights
from ssl_lightning.runs.resume import CONTENT, StartPlan, differences

log = logging.getLogger(__name__)
OF_THE_OPTIMIZER = ("model.init_args.optimizer.class_path", "model.init_args.decay_all")
"""Settings with which an optimizer has another kind of state, or other groups of parameters."""


def from_checkpoint(path: str, inputs: dict[str, Any], model: Method, allow_change: bool) -> StartPlan:
    """A checkpoint that the user gives: resumed from if this package wrote it, else only its weights are taken.

    Args:
        path: Of the checkpoint.
        inputs: What the run computes.
        model: What is trained.
        allow_change: Whether settings may differ from those of the checkpoint.

    Raises:
        UsageError: It does not fit the run.
    """
    checkpoint, changed = compared(path, inputs)
    if not has_sidecar(path):
        log.info(f"found no sidecar beside {path}: taking its weights only")
        return from_weights(path, model)
    if changed and not allow_change:
        raise UsageError(
            f"found --ckpt_path {path} made with other settings: {'; '.join(changed[:5])}; change them back, give "
            f"--resume.allow_config_change (for the same data), or begin with its weights alone: --run.start_from "
            f"{path}"
        )
    if changed:
        reject_misfits(path, checkpoint, changed, model)
    return StartPlan(checkpoint=str(Path(path).resolve()))


def from_weights(path: str, model: Method) -> StartPlan:
    """Give the method the networks of a checkpoint and nothing that belongs to the rows it was trained on.

    Args:
        path: Of the checkpoint.
        model: What is trained.

    Raises:
        UsageError: If they do not fit.
    """
    state = read_checkpoint(path)["state_dict"]
    try:
        if misfit := find_misfit(model, state):
            raise UsageError(
                f"found weights in {path} that do not fit {type(model).__name__}: {misfit}; expected a checkpoint of "
                "the same method with the same networks: change the settings, or give another file"
            )
        take_weights(model, state)
    except UsageError:
        raise
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        first = " ".join(str(error).split())[:200]
        raise UsageError(f"found weights in {path} that do not fit {type(model).__name__}: {first}") from error
    return StartPlan(weights=path)


def compared(path: str, inputs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A checkpoint, and what this run computes otherwise than the one that wrote it.

    Args:
        path: Of the checkpoint.
        inputs: What this run computes.
    """
    checkpoint = read_checkpoint(path)
    return checkpoint, differences(without_initial_weights(checkpoint.get("config", {})), inputs)


def reject_misfits(path: str, checkpoint: dict[str, Any], changed: list[str], model: Method) -> None:
    """Settings may change between a checkpoint and the run that resumes from it; what is in it must still fit.

    Args:
        path: Of the checkpoint.
        checkpoint: Its content.
        changed: Settings that differ, each beginning with its name.
        model: What is trained.

    Raises:
        UsageError: For other images, networks or another optimizer; nothing of the run has been touched.
    """
    restart = f"change it back, or give --run.name for a new run and --run.start_from {path} for its weights alone"
    for change in changed:
        name = change.partition(" ")[0]
        if name == "data_fingerprint":
            raise UsageError(f"found {path} of other images (data.fingerprint): its rows are those images; {restart}")
        if name in OF_THE_OPTIMIZER:
            raise UsageError(f"found {path} with the state of another optimizer ({change}): {restart}")
    misfit = find_misfit(model, checkpoint["state_dict"]) if changed else ""
    if misfit:
        raise UsageError(
            f"found {misfit} in {path}: these settings make other networks; change them back, or give --run.name "
            "for a new run"
        )


def check_rows(checkpoint: dict[str, Any], path: str, num_samples: int) -> None:
    """Labels and memory banks belong to the rows of the run.

    Args:
        checkpoint: Its content.
        path: Of the checkpoint.
        num_samples: Rows of the run.

    Raises:
        DataError: If they are more or fewer, or labels below -1.
    """
    for name, state in checkpoint["state_dict"].items():
        rows = state.get("rows") if isinstance(state, dict) else None
        if not isinstance(rows, torch.Tensor) or rows.dim() != 2 or not rows.numel():
            continue
        below = not rows.is_floating_point() and int(rows.min()) < -1
        if len(rows) != num_samples or below:
            raise DataError(
                f"found {path} with {len(rows)} rows{' and labels below -1' if below else ''} in {name}, expected the "
                f"{num_samples} of this run: give another checkpoint, or begin with its weights alone: --run.start_from"
            )


def digests_of(files: dict[str, str]) -> dict[str, str]:
    """The sha256 of each file of an earlier stage, for a run to notice when it was made again.

    Args:
        files: Paths by argument of the method.

    Raises:
        UsageError: If one is missing.
    """
    for argument, path in files.items():
        if not Path(path).is_file():
            raise UsageError(f"found no --model.{argument} {path}; run the stage that writes it, or fix the path")
    return {f"{argument}{CONTENT}": sha256_of(Path(path).resolve()) for argument, path in files.items()}


@contextmanager
def restoring(trainer: pl.Trainer, path: str) -> Iterator[None]:
    """Errors while Lightning gives a checkpoint's state back are the checkpoint's.

    Its three functions that do so are wrapped meanwhile; whatever comes after them keeps its own errors.

    Args:
        trainer: The trainer of `fit`.
        path: Of the checkpoint.

    Raises:
        DataError: The state does not fit what it belongs to.
    """
    connector, loop = cast(Any, trainer)._checkpoint_connector, cast(Any, trainer).fit_loop
    places = [
        (connector, "_restore_modules_and_callbacks"),
        (connector, "restore_training_state"),
        (loop, "_load_combined_loader_states"),
    ]
    for owner, name in places:
        setattr(owner, name, partial(_restore, path, owner, name))  # which strategies that start processes can pickle
    try:
        yield
    finally:
        for owner, name in places:
            delattr(owner, name)  # that of the instance, which hides the method of its class


def _restore(path: str, owner: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the class of `owner`.

    Raises:
        DataError: For an error during the restore of the checkpoint.
    """
    try:
        return getattr(type(owner), name)(owner, *args, **kwargs)
    except (OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        is_known = isinstance(error, RunStoppedError) and not isinstance(error, DataError)
        if is_known or (isinstance(error, DataError) and Path(path).name in str(error)):
            raise
        reason = " ".join(str(error).split())[:300]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise DataError(
            f"found {path}, which cannot be resumed from ({kind}{reason}); give an earlier checkpoint, or begin with "
            "its weights alone: --run.start_from"
        ) from error
