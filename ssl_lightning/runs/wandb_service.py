"""The service process of wandb, which sends in the background, and what `wandb agent` sets for a trial of a sweep."""

import os
import subprocess
from typing import Any

PATIENCE = 5.0
"""Seconds for the service to write its files."""


def trial_of_sweep() -> str:
    """The id of the run that `wandb agent` has started this process for; empty without an agent."""
    trial = os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""
    return trial if trial.isalnum() else ""


def forget_attempt() -> None:
    """End the service after an attempt to connect: it may hold the id of the run after a timeout."""
    import wandb

    wandb.teardown()


def end_service() -> None:
    """End the service although it has not sent everything.

    wandb waits for it when the program ends, without a limit where there is no network. There is no public function for
    this; with another version of wandb that keeps its process elsewhere, nothing happens.
    """
    try:
        from wandb.sdk import wandb_setup

        setup: Any = wandb_setup.singleton()
        connection = setup._connection
        process: subprocess.Popen[bytes] = connection._proc._process
        connection._cleanup()  # or the program would wait at its end
        connection._finalizer.close()  # a thread that would send to it
        setup._connection = None
    except (ImportError, AttributeError, TypeError):
        return
    os.environ.pop("WANDB_SERVICE", None)  # or a later run of this program would look for it
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
