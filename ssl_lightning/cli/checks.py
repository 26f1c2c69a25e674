"""Checks of a parsed command line, before anything is made of it."""

import logging
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace

from ssl_lightning.checkpoints.kinds import rejection
from ssl_lightning.checkpoints.places import Described, check_arguments, check_call, leave_out_default_functions
from ssl_lightning.cli.outputs import given_values, keep_inside
from ssl_lightning.data import ImageModule
from ssl_lightning.errors import UsageError
from ssl_lightning.methods import Method
from ssl_lightning.processes import rank
from ssl_lightning.runs import RunDirectory

log = logging.getLogger(__name__)


def check_policy(options: Namespace, run: RunDirectory, arguments: list[str]) -> list[Described]:
    """Reject names that no file may hold, and keep in the folder of the run what files write; see SECURITY.md.

    Args:
        options: As parsed.
        run: Folder of the run.
        arguments: Of the command line, which may name paths that no file may.

    Returns:
        Every class that the configuration names.

    Raises:
        UsageError: Names the place of the first that is rejected.
    """
    kinds: dict[str, Any] = {"model": Method, "data": ImageModule}
    others = {name: value for name, value in vars(options).items() if name not in ("trainer", "config")}
    described = check_arguments(others, kinds, "", {})
    described += check_call(pl.Trainer, options.trainer, "trainer")
    leave_out_default_functions(described)
    if options.trainer.profiler == "pytorch":
        raise UsageError(f"found trainer.profiler pytorch: {rejection('lightning.pytorch.profilers.PyTorchProfiler')}")
    keep_inside(described, run.path, arguments)
    if rank() == 0:
        _log_folder(options, run, arguments)
    return described


def reject_two_checkpoints(subcommand: str, options: Namespace) -> None:
    """Reject a second checkpoint to start with, and initial weights for a subcommand that trains nothing.

    Raises:
        UsageError: If so.
    """
    start_from, ckpt_path = options.run.start_from, options.ckpt_path
    if start_from and subcommand != "fit":
        raise UsageError(
            f"found --run.start_from with {subcommand}, which trains nothing: give --ckpt_path {start_from}"
        )
    if start_from and ckpt_path:
        raise UsageError(
            "found --run.start_from and --ckpt_path; expected one of them: the first begins with a checkpoint's "
            "weights alone, the second resumes from a checkpoint"
        )


def reject_trained_folder(subcommand: str, run: RunDirectory) -> None:
    """Reject to write what is no training into the folder of a trained run.

    Raises:
        UsageError: If so.
    """
    if subcommand != "fit" and run.exists:
        raise UsageError(
            f"found {run.path}, the folder of a trained run, which {subcommand} would write into: give another name, "
            f"such as --run.name {run.name}-{subcommand}"
        )


def _log_folder(options: Namespace, run: RunDirectory, arguments: list[str]) -> None:
    """Log what decides where the run lives and does not stand on the command line."""
    root = options.trainer.default_root_dir
    if root is not None:
        log.info(f"trainer.default_root_dir {root} is not used: a run lives in {run.path}, see --run.dir")
    for name, default in (("dir", "runs"), ("name", None)):
        value = options.run[name]
        if value != default and value not in given_values(arguments, f"run.{name}"):
            log.info(f"run.{name} {value}, as a configuration file has it")
