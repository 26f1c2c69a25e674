"""Features of a source in parts that an engine computes; finished parts are never computed again.

Batches are those of one pass over all images, since kernels, and so the last bits of features, depend on the size of a
batch. A part has whole batches.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.callbacks.embed import embed_part
from ssl_lightning.checkpoints.load import build_data, load_model
from ssl_lightning.clustering.tensor_file import read_tensors, stable_bytes
from ssl_lightning.engines import Count, Engine, Job
from ssl_lightning.errors import DataError
from ssl_lightning.files import sha256_of, sweep_temporary, write_atomically
from ssl_lightning.progress import progress
from ssl_lightning.types import Weights

BATCHES_OF_A_PART = 2
_VERSION = 1
_TENSORS = ("features", "rows", "unreadable")


@dataclass(frozen=True)
class FeatureSource:
    """What features are computed from.

    Attributes:
        checkpoint: Absolute path of the file.
        sha256: Of the file.
        data: The data section, with the preprocessing of the model, as JSON.
        fingerprint: Of the images.
        layer: A layer of the method; None for its first.
        weights: "ema" for the averaged weights.
        device: cpu or cuda.
    """

    checkpoint: str
    sha256: str
    data: str
    fingerprint: str
    layer: str | None
    weights: Weights
    device: str


@dataclass(frozen=True)
class _Task:
    """The rows of a part, from `start` to before `end`, and its file."""

    source: FeatureSource
    start: int
    end: int
    path: str


class FeatureParts:
    """Features of all images of a source in a folder of safetensors files.

    Args:
        source: What they are computed from.
        num_images: Number of images.
        batch_size: Images of a batch.
        folder: Of the parts.
    """

    def __init__(self, source: FeatureSource, num_images: int, batch_size: int, folder: Path) -> None:
        self.num_images, self.folder = num_images, folder.absolute()
        content = asdict(source) | {"version": _VERSION, "batch_size": batch_size}
        del content["checkpoint"]
        size = batch_size * BATCHES_OF_A_PART
        self.tasks = [
            _Task(source, start, min(start + size, num_images), str(self._path(content, start)))
            for start in range(0, num_images, size)
        ]

    def make(self, engine: Engine, job: Job | None = None) -> tuple[int, int]:
        """Compute the parts that are not finished.

        Args:
            engine: Computes them.
            job: Compute the parts of one job only; None for all.

        Returns:
            Number of parts, and of those that were computed now.

        Raises:
            DataError: If a machine has another checkpoint or other images.
            OSError: If a part cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_temporary(self.folder)
        chosen = self.tasks if job is None else job.share(self.tasks)
        left = [task for task in chosen if not Path(task.path).exists()]
        count = sum(task.end - task.start for task in left)
        _opened.cache_clear()  # files may have been renamed, which a fingerprint leaves out
        with progress(range(max(1, count)), "computing features", "images", shown=bool(left)) as bar:
            for _, result in engine.carry_out(_make, left, lambda images, _: bar.update(images)):
                if isinstance(result, DataError):
                    raise result
        return len(self.tasks), len(left)

    def read(self) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"], list[int]]:
        """Rows that are readable, their features, and rows that are not.

        Raises:
            DataError: If a part is missing or damaged.
        """
        rows, unreadable, features, done = [], [], torch.empty(0, 0), 0
        for task in self.tasks:
            part = self._read(Path(task.path))
            if not rows:
                features = torch.empty(self.num_images, part["features"].shape[1])
            features[done : done + len(part["rows"])] = part["features"]
            done += len(part["rows"])
            rows.append(part["rows"])
            unreadable += part["unreadable"].tolist()
        return torch.cat(rows), features[:done], unreadable

    def remove(self) -> None:
        """Remove the folder of the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_those_of(self, rows: Sequence[int]) -> None:
        """Remove the parts of some rows, so that they are computed again.

        Args:
            rows: Such as those that are not readable.
        """
        for task in self.tasks:
            if any(task.start <= row < task.end for row in rows):
                Path(task.path).unlink(missing_ok=True)

    def _path(self, content: dict[str, Any], start: int) -> Path:
        described = json.dumps(content | {"start": start}, sort_keys=True)
        return self.folder / f"{hashlib.sha256(described.encode()).hexdigest()[:32]}.safetensors"

    @staticmethod
    def _read(path: Path) -> dict[str, Tensor]:
        if not path.exists():
            raise DataError(
                f"found no part {path}, which a worker wrote; expected a folder that all machines share: give `out` in "
                "one"
            )
        return read_tensors(path, "a whole part of features; remove it", _TENSORS)[0]


@lru_cache(maxsize=1)
def _opened(source: FeatureSource) -> tuple[Any, Any]:
    """The model and the images of features, which one process opens once."""
    if (found := sha256_of(Path(source.checkpoint))) != source.sha256:
        raise DataError(
            f"found another checkpoint {source.checkpoint} ({found[:12]}); expected {source.sha256[:12]}, the same "
            "file on each machine"
        )
    described = json.loads(source.data)
    if source.device == "cpu":  # each process of an engine has one core
        described["init_args"]["num_workers"] = 0
    images = build_data(described, source.checkpoint)
    if images.fingerprint != source.fingerprint:
        raise DataError(
            f"found other images ({images.fingerprint[:12]}); expected {source.fingerprint[:12]}, the same on each "
            "machine"
        )
    return load_model(source.checkpoint).to(source.device), images


def _make(task: _Task, count: Count) -> None:
    if Path(task.path).exists():  # of a worker that was lost after it wrote the part
        return
    source = task.source
    model, images = _opened(source)
    with _one_thread():
        selected = torch.arange(task.start, task.end)
        rows, features, unreadable = embed_part(model, images, selected, source.layer, source.weights)
    tensors = {"features": features.contiguous(), "rows": rows, "unreadable": unreadable}
    write_atomically(Path(task.path), lambda file: file.write(stable_bytes(tensors, {})))
    count(task.end - task.start, 0)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch, as in every process of an engine: sums of several threads may differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
