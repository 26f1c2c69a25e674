"""What a run was started with: from its newest checkpoint, which holds it; from run.json before there is one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints.read import read_checkpoint
from ssl_lightning.runs.directory import RunDirectory

CONFIG, ORIGIN = "config", "origin"
"""Keys of a checkpoint: the inputs of its run, and what the run began with."""


@dataclass(frozen=True)
class Record:
    """What a run was started with.

    Attributes:
        checkpoint: Its newest whole one, which the rest was read from; None where there is none.
        inputs: All that decides what it computes; None where nothing is known of it.
        copy: The inputs in run.json, None where it is missing or damaged.
        origin: The checkpoint that it began with, as `Origin.noted` gives it.
    """

    checkpoint: Path | None = None
    inputs: dict[str, Any] | None = None
    copy: dict[str, Any] | None = None
    origin: dict[str, Any] = field(default_factory=dict)


def recorded(run: RunDirectory) -> Record:
    """What the files of a run say that it was started with.

    The checkpoint decides, since nothing in it changes without a trace; run.json is a copy for people. Checkpoints of
    the first versions hold no inputs: there run.json decides, as in a run that has no checkpoint yet.

    Raises:
        DataError: If the newest checkpoint is whole but cannot be read.
    """
    facts, checkpoint = run.read("run.json") or {}, run.newest_checkpoint()
    copy = _inputs(facts.get("inputs"))
    if checkpoint is None:
        return Record(None, copy, copy, _origin(facts.get(ORIGIN)))
    held = read_checkpoint(checkpoint)
    inputs = _inputs(held.get(CONFIG))
    source = facts if inputs is None or ORIGIN not in held else held
    return Record(checkpoint, copy if inputs is None else inputs, copy, _origin(source.get(ORIGIN)))


def _inputs(found: Any) -> dict[str, Any] | None:
    """Of the right type, whatever the file holds."""
    return found if isinstance(found, dict) and found and all(isinstance(key, str) for key in found) else None


def _origin(found: Any) -> dict[str, Any]:
    return found if _is_origin(found) else {}


def _is_origin(origin: Any) -> bool:
    return (
        isinstance(origin, dict)
        and set(origin) == {"path", "inputs"}
        and (origin["path"] is None or isinstance(origin["path"], str))
        and isinstance(origin["inputs"], dict)
        and all(isinstance(value, str) for item in origin["inputs"].items() for value in item)
    )
