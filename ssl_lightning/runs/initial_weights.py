"""Origin: the checkpoint that a run began with, so that another one is noticed as any other input is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints.read import has_sidecar, read_checkpoint
from ssl_lightning.errors import UsageError
from ssl_lightning.files import sha256_of
from ssl_lightning.runs.directory import RunDirectory

RESUMED, WEIGHTS = "ckpt_path_sha256", "start_from_sha256"
"""Inputs of a run that went on where a checkpoint stopped, and of one that took its weights alone."""


@dataclass(frozen=True)
class InitialWeights:
    """What a run began with.

    Attributes:
        path: As the command gave it; None for a fresh network.
        inputs: sha256 of the file, under a name that says what was taken of it.
    """

    path: str | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    def noted(self) -> dict[str, Any]:
        """For checkpoints and run.json."""
        return asdict(self)


def find_initial_weights(
    run: RunDirectory, ckpt_path: str | None, start_from: str | None, noted: Mapping[str, Any]
) -> InitialWeights:
    """What a command begins with.

    A file that has gone since the run began was what the run has noted. The newest checkpoint of the run itself is no
    origin: the run goes on from there whether it is named or not.

    Args:
        run: Its folder.
        ckpt_path: `--ckpt_path`: resumed from, or, without a sidecar, its weights.
        start_from: `--run.start_from`: its weights.
        noted: The origin of the run as `recorded` gives it; empty for none.

    Raises:
        UsageError: For an earlier checkpoint of the run itself.
        ValueError: For a file that is not there and that this run did not begin with.
    """
    path = ckpt_path or start_from
    if path is None:
        return InitialWeights()
    if not Path(path).is_file():
        if noted.get("path") == path:
            return InitialWeights(**noted)
        read_checkpoint(path)  # says what is wrong with the path
    if Path(path).resolve().parent == run.checkpoints.resolve():
        _reject_earlier(run, path)
        return InitialWeights(**noted)
    resumed = ckpt_path is not None and has_sidecar(path)
    return InitialWeights(path, {RESUMED if resumed else WEIGHTS: sha256_of(Path(path).resolve())})


def without_initial_weights(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a checkpoint's run, to compare with those of a run that goes on from it."""
    return {name: value for name, value in inputs.items() if name not in (RESUMED, WEIGHTS)}


def _reject_earlier(run: RunDirectory, path: str) -> None:
    newest = run.newest_checkpoint()
    if newest is not None and newest.resolve() != Path(path).resolve():
        raise UsageError(
            f"found --ckpt_path {path}, an earlier checkpoint of {run.path}, which goes on from {newest.name}; give "
            f"--run.name {run.free_name()} for a run that goes on from the earlier one"
        )
