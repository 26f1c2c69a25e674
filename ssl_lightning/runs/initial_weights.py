"""InitialWeights: the checkpoint with the initial weights of a run, which is one of its inputs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints.read import has_sidecar, read_checkpoint
from ssl_lightning.errors import UsageError
from ssl_lightning.files import sha256_of
from ssl_lightning.runs.directory import RunDirectory

RESUMED, WEIGHTS = "ckpt_path_sha256", "start_from_sha256"
"""Inputs of a run that resumed from a checkpoint, and of one that took its weights only."""


@dataclass(frozen=True)
class InitialWeights:
    """The checkpoint with the initial weights of a run.

    Attributes:
        path: As given by the command; None for random weights.
        inputs: SHA-256 of the file, under one name for a resume and another for initial weights.
    """

    path: str | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    def noted(self) -> dict[str, Any]:
        """As plain values, for checkpoints and run.json."""
        return asdict(self)


def find_initial_weights(
    run: RunDirectory, ckpt_path: str | None, start_from: str | None, noted: Mapping[str, Any]
) -> InitialWeights:
    """The initial weights of a command.

    A file that no longer exists is taken from the record of the run. The newest checkpoint of the run itself does not
    count: the run resumes from it anyway.

    Args:
        run: Folder of the run.
        ckpt_path: `--ckpt_path`: a checkpoint to resume from or, without a sidecar, its weights.
        start_from: `--run.start_from`: a checkpoint with the initial weights.
        noted: The recorded initial weights of the run; empty for none.

    Raises:
        UsageError: For an earlier checkpoint of the run itself.
        DataError: For a missing file that is not in the record.
    """
    path = ckpt_path or start_from
    if path is None:
        return InitialWeights()
    if not Path(path).is_file():
        if noted.get("path") == path:
            return InitialWeights(**noted)
        read_checkpoint(path)  # raises
    if Path(path).resolve().parent == run.checkpoints.resolve():
        _reject_earlier(run, path)
        return InitialWeights(**noted)
    resumed = ckpt_path is not None and has_sidecar(path)
    return InitialWeights(path, {RESUMED if resumed else WEIGHTS: sha256_of(Path(path).resolve())})


def without_initial_weights(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a run without its initial weights, to compare them with those of a run that resumes from it."""
    return {name: value for name, value in inputs.items() if name not in (RESUMED, WEIGHTS)}


def _reject_earlier(run: RunDirectory, path: str) -> None:
    newest = run.newest_checkpoint()
    if newest is not None and newest.resolve() != Path(path).resolve():
        raise UsageError(
            f"found --ckpt_path {path}, an earlier checkpoint of {run.path}, which resumes from {newest.name}; give "
            f"--run.name {run.free_name()} for a run that resumes from the earlier one"
        )
