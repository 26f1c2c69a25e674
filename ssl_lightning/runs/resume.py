"""Whether to start or resume a run: comparison of a command with the files of a run."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssl_lightning.checkpoints.plain import MAX_DEPTH
from ssl_lightning.errors import UsageError
from ssl_lightning.runs.directory import RunDirectory
from ssl_lightning.runs.record import RunRecord, recorded

log = logging.getLogger(__name__)
Policy = Literal["auto", "never", "must", "restart"]

VOLATILE = frozenset(
    {
        "ckpt_path",
        "config",
        "doctor",
        "resume",
        "run",
        "weights_only",
        "data.init_args.balance.path",
        "data.init_args.num_workers",
        "data.init_args.eval_batch_size",
        "data.init_args.limits",
        "data.init_args.subset.path",
        "trainer.accelerator",
        "trainer.barebones",
        "trainer.default_root_dir",
        "trainer.detect_anomaly",
        "trainer.devices",
        "trainer.enable_progress_bar",
        "trainer.logger",
        "trainer.max_time",
        "trainer.num_nodes",
        "trainer.profiler",
        "trainer.strategy",
    }
)
"""Keys that do not change the result of a run; for `ckpt_path` see `find_initial_weights`.

The images of a subset are part of the fingerprint of the data; the file of `balance` is an input by its content.
"""
OF_THE_IMAGES = ("data.init_args.balance.path", "data.init_args.limits", "data.init_args.subset.path")
"""Keys among these that a checkpoint holds all the same: the images cannot be found again without them."""

DATA, DATA_BY_NAMES = "data_fingerprint", "data_fingerprint_by_names"
"""Inputs: fingerprint of the data by content, and by names and sizes (the only one in runs of earlier versions)."""

CONTENT = "_sha256"
"""Suffix of the name of an input that is the SHA-256 of the file of a method's argument."""


@dataclass(frozen=True)
class ResumeDecision:
    """What to do with a run.

    Attributes:
        action: "start", "resume", "restart" (archive the old folder, then start) or "finished".
        checkpoint: The checkpoint to resume from.
        why: The reason, one line.
    """

    action: Literal["start", "resume", "restart", "finished"]
    checkpoint: Path | None = None
    why: str = ""


@dataclass(frozen=True)
class StartPlan:
    """How every process of a run starts; rank 0 decides and broadcasts it.

    Attributes:
        go: Whether there is anything to do; if not, rank 0 has logged the reason.
        checkpoint: The checkpoint to resume from; None for a new run.
        weights: A checkpoint with initial weights.
    """

    go: bool = True
    checkpoint: str | None = None
    weights: str | None = None


def decide(
    run: RunDirectory,
    policy: Policy,
    allow_change: bool,
    inputs: dict[str, Any],
    record: RunRecord | None = None,
) -> ResumeDecision:
    """Compare a command with the run of that name.

    Args:
        run: Folder of the run.
        policy: `--resume.policy`.
        allow_change: `--resume.allow_config_change`.
        inputs: The inputs of the command as plain values, see `computed`.
        record: The inputs of the run, if they were read already.

    Raises:
        UsageError: If the policy forbids the required action, with the key that differs and what to do.
    """
    if not run.exists:
        if policy == "must":
            raise UsageError(f"found no run to resume in {run.path}; expected one, since --resume.policy is must")
        return ResumeDecision("start")
    if policy == "never":
        raise UsageError(f"found the run {run.path}; choose another name: --run.name {run.free_name()}")
    finished = run.finished() is not None
    record = record or recorded(run)
    checkpoint = record.checkpoint
    changed = [] if record.inputs is None else differences(record.inputs, inputs)
    _log_copy(run, record)
    if finished and not changed:
        return ResumeDecision("finished", checkpoint, f"{run.path} has finished with these inputs; nothing to do")
    if policy == "restart" and changed and not allow_change:
        return ResumeDecision("restart", None, f"inputs of {run.path} changed ({'; '.join(changed[:3])})")
    if policy == "must" and checkpoint is None:
        raise UsageError(
            f"found no whole checkpoint in {run.checkpoints}; expected one, since --resume.policy is must: give "
            "--resume.policy auto to start again"
        )
    something_to_lose = finished or checkpoint is not None or (run.path / "done.json").exists()
    if changed and not allow_change and something_to_lose:
        state = "has finished" if finished else "was started"
        raise UsageError(
            f"found {run.path}, which {state} with other inputs: {'; '.join(changed[:5])}; give --run.name for a new "
            "run, --resume.policy restart to archive the old one, or --resume.allow_config_change to resume it"
        )
    other = f" with other settings: {'; '.join(changed[:5])}" if changed else ""
    if checkpoint is None:
        return ResumeDecision("start", None, f"{run.path} holds no checkpoint yet; starting again{other}")
    return ResumeDecision("resume", checkpoint, f"resuming {run.path} from {checkpoint.name}{other}")


def _log_copy(run: RunDirectory, record: RunRecord) -> None:
    """Log if run.json differs from the checkpoint, by an edit, damage, or a resume with new settings."""
    if record.checkpoint is None or record.inputs is record.copy:
        return
    holder = record.checkpoint.name
    if record.copy is None:
        log.warning("found no whole %s: the settings that count are those in %s", run.path / "run.json", holder)
    elif record.inputs is not None and (changed := differences(record.inputs, record.copy)):
        differing = (run.path / "run.json", holder, "; ".join(changed[:3]))
        log.warning("found %s, which differs from %s: %s; the checkpoint counts", *differing)


def computed(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as a flat table, without keys that change neither the result nor which images it is of."""
    flat = _flatten(config)
    return {key: value for key, value in flat.items() if not _is_volatile(key) or _begins(key, OF_THE_IMAGES)}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys that differ, as `key old -> new`; files are compared by content, not by path."""
    old, new = _by_content(old), _by_content(new)
    if DATA_BY_NAMES not in old and old.get(DATA) == new.get(DATA_BY_NAMES):
        old = old | {DATA: new.get(DATA)}
    return changes(old, new, without=DATA_BY_NAMES)


def changes(old: dict[str, Any], new: dict[str, Any], without: str = "") -> list[str]:
    """Keys of two flat tables that differ, as `key old -> new`.

    Args:
        old: Of one configuration.
        new: Of the other.
        without: A key that is not compared.
    """
    keys = sorted({*old, *new} - {without})
    return [_change(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _change(key: str, old: Any, new: Any) -> str:
    """One difference; of contents it is enough that they differ."""
    if key == DATA and old is not None and new is not None:
        return f"{DATA} differs: the training images have other names, sizes or content"
    if key.endswith(CONTENT) and old is not None and new is not None:
        return f"{key} is that of another file"
    return f"{key} {old!r} -> {new!r}"


def _by_content(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs without the paths of files that are included by content."""
    held = {f"model.init_args.{name.removesuffix(CONTENT)}" for name in inputs if name.endswith(CONTENT)}
    return {name: value for name, value in inputs.items() if name not in held and not _is_volatile(name)}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        items = ((_escaped(str(key)), item) for key, item in value.items())
    elif isinstance(value, list) and value:
        items = ((str(position), item) for position, item in enumerate(value))
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= _flatten(item, f"{prefix}.{key}" if prefix else key)
    return flat


def _escaped(name: str) -> str:
    r"""A name of a table, without a bare dot and unlike a position in a list: `v2.0` is `v2\.0`, and `7` is `\7`."""
    return f"\\{name}" if name.isdigit() else re.sub(r"[.\\]", r"\\\g<0>", name)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a flat table, the inverse of `computed` but for the keys that it leaves out."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        names = re.findall(r"(?:\\.|[^.\\])+", key)
        if not 0 < len(names) <= MAX_DEPTH:  # of a file that this package has not written
            return {}
        *parents, last = names
        inner = tree
        for name in parents:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):  # of a file that this package has not written
                return {}
        inner[last] = value
    return _with_lists(tree)


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _with_lists(item) for name, item in value.items()}
    positions = [str(position) for position in range(len(inner))]
    if inner and list(inner) == positions:
        return list(inner.values())
    return {re.sub(r"\\(.)", r"\1", name): item for name, item in inner.items()}


def _is_volatile(key: str) -> bool:
    return _begins(key, VOLATILE)


def _begins(key: str, places: Iterable[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)
