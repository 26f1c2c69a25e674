"""RunRecord: the inputs of a run, from its newest checkpoint, or from run.json before there is one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints.read import read_checkpoint
from ssl_lightning.runs.directory import RunDirectory

CONFIG, INITIAL_WEIGHTS = "config", "initial_weights"
"""Keys of a checkpoint: the inputs of its run, and its initial weights."""


@dataclass(frozen=True)
class RunRecord:
    """The inputs of a run.

    Attributes:
        checkpoint: The newest valid checkpoint, from which the rest was read; None if there is none.
        inputs: All that determines the result; None if unknown.
        copy: The inputs in run.json, None if it is missing or damaged.
        initial_weights: The checkpoint of the initial weights, see `InitialWeights.noted`.
    """

    checkpoint: Path | None = None
    inputs: dict[str, Any] | None = None
    copy: dict[str, Any] | None = None
    initial_weights: dict[str, Any] = field(default_factory=dict)


def recorded(run: RunDirectory) -> RunRecord:
    """Read the inputs of a run from its files.

    The checkpoint counts, since its content is verified; run.json is a copy for people. Checkpoints of the first
    versions hold no inputs; for them run.json counts, as for a run without a checkpoint.

    Raises:
        DataError: If the newest checkpoint is valid but cannot be read.
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
    """The inputs if they have the right type, else None."""
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
