"""What a run was started with: from its newest checkpoint, which holds it; from run.json before there is one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints.read import read_checkpoint
from ssl_lightning.runs.directory import RunDirectory

CONFIG, INITIAL_WEIGHTS = "config", "initial_weights"
"""Keys of a checkpoint: the inputs of its run, and what the run began with."""


@dataclass(frozen=True)
class RunRecord:
    """What a run was started with.

    Attributes:
        checkpoint: Its newest whole one, which the rest was read from; None where there is none.
        inputs: All that decides what it computes; None where nothing is known of it.
        copy: The inputs in run.json, None where it is missing or damaged.
        origin: The checkpoint that it began with, as `InitialWeights.noted` gives it.
    """

    checkpoint: Path | None = None
    inputs: dict[str, Any] | None = None
    copy: dict[str, Any] | None = None
    initial_weights: dict[str, Any] = field(default_factory=dict)


def recorded(run: RunDirectory) -> RunRecord:
    """What the files of a run say that it was started with.

    The checkpoint decides, since nothing in it changes without a trace; run.json is a copy for people. Checkpoints of
    the first versions hold no inputs: there run.json decides, as in a run that has no checkpoint yet.

    Raises:
        DataError: If the newest checkpoint is whole but cannot be read.
    """
    facts, checkpoint = run.read("run.json") or {}, run.newest_checkpoint()
    copy = _inputs(facts.get("inputs"))
    if checkpoint is None:
        return RunRecord(None, copy, copy, _initial_weights(facts.get(INITIAL_WEIGHTS)))
    held = read_checkpoint(checkpoint)
    inputs = _inputs(held.get(CONFIG))
    source = facts if inputs is None or INITIAL_WEIGHTS not in held else held
    return RunRecord(
        checkpoint, copy if inputs is None else inputs, copy, _initial_weights(source.get(INITIAL_WEIGHTS))
    )


def _inputs(found: Any) -> dict[str, Any] | None:
    """Of the right type, whatever the file holds."""
    return found if isinstance(found, dict) and found and all(isinstance(key, str) for key in found) else None


def _initial_weights(found: Any) -> dict[str, Any]:
    return found if _is_initial_weights(found) else {}


def _is_initial_weights(initial_weights: Any) -> bool:
    return (
        isinstance(initial_weights, dict)
        and set(initial_weights) == {"path", "inputs"}
        and (initial_weights["path"] is None or isinstance(initial_weights["path"], str))
        and isinstance(initial_weights["inputs"], dict)
        and all(isinstance(value, str) for item in initial_weights["inputs"].items() for value in item)
    )
