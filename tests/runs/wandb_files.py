"""Reads the file of a Weights & Biases run: rows, configuration, summary, artifacts and alerts.

The format is wandb's own and not public: records of `wandb.proto` in the log format of LevelDB. A canary test fails
where it changes.
"""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768


@dataclass
class Held:
    """What a file holds."""

    run: Any = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    is_finished: bool = False

    def artifact(self, kind):
        """The artifacts of a type."""
        return [artifact for artifact in self.artifacts if artifact.type == kind]


def read_run(folder: Path) -> list[Held]:
    """The sessions of a run in its folder, the oldest first."""
    return [read_file(file) for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def read_file(path: Path) -> Held:
    held = Held()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            held.run = record.run
        elif kind == "history":
            held.rows.append(values(record.history.item))
        elif kind == "config":
            held.config |= values(record.config.update)
        elif kind == "summary":
            held.summary |= values(record.summary.update)
        elif kind == "artifact":
            held.artifacts.append(record.artifact)
        elif kind == "alert":
            held.alerts.append((record.alert.title, record.alert.text))
        elif kind == "metric":
            held.metrics.append(record.metric)
        elif kind == "exit":
            held.is_finished = True
    return held


def values(items) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def records(path: Path):
    from wandb.proto import wandb_internal_pb2

    content, position, parts = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def table(folder: Path, key: str) -> dict[str, Any]:
    """The last table of a name that a run has logged."""
    files = sorted(folder.glob(f"wandb/offline-run-*/files/media/table/{key}_*.table.json"))
    return json.loads(files[-1].read_text())
