"""Thumbnails of some images of a manifest, computed in parts by an engine; finished parts are never made again."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from pyarrow import parquet

from ssl_lightning.data.duplicates import SIDE
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.options import DEFAULT_OPTIONS
from ssl_lightning.engines import Count, Engine, Job
from ssl_lightning.errors import DataError
from ssl_lightning.files import sweep_temporary, write_atomically
from ssl_lightning.progress import progress

IMAGES_OF_A_PART = 1024
_AT_ONCE = 256
"""Images that are decoded at a time."""
_VERSION = 1
_VALUES = SIDE * SIDE * 3
_SCHEMA = pa.schema([pa.field("row", pa.int64()), pa.field("thumbnail", pa.binary(_VALUES))])


@dataclass(frozen=True, eq=False)
class _Task:
    """Rows of a manifest, and the part of their thumbnails."""

    manifest: str
    fingerprint: str
    rows: Int64[np.ndarray, "n"]
    path: str


class ThumbnailParts:
    """Thumbnails of rows of a manifest in a folder of Parquet files.

    Args:
        manifest: The file, or a folder of them.
        fingerprint: Of its images.
        folder: Of the parts.
    """

    def __init__(self, manifest: Path, fingerprint: str, folder: Path) -> None:
        self.manifest, self.fingerprint, self.folder = manifest.absolute(), fingerprint, folder.absolute()

    def make(self, rows: Int64[np.ndarray, "n"], engine: Engine, job: Job | None = None) -> tuple[int, int]:
        """Make the parts of some rows that are not finished.

        Args:
            rows: Distinct rows, ascending.
            engine: Reads and decodes the images.
            job: Make the parts of one job only; None for all.

        Returns:
            Number of parts, and of those that were made now.

        Raises:
            DataError: If an image cannot be read.
            OSError: If a part cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        tasks = self._tasks(rows)
        chosen = tasks if job is None else job.share(tasks)
        left = [task for task in chosen if not Path(task.path).exists()]
        count = sum(len(task.rows) for task in left)
        _opened.cache_clear()  # files may have been renamed, which a fingerprint leaves out
        with progress(range(max(1, count)), "comparing candidates", "images", shown=bool(left)) as bar:
            for _, result in engine.carry_out(_make, left, lambda files, _: bar.update(files)):
                if isinstance(result, DataError):
                    raise result
        return len(tasks), len(left)

    def read(self, rows: Int64[np.ndarray, "n"]) -> UInt8[np.ndarray, "n values"]:
        """Thumbnails of the rows for which parts were made, one row of values each.

        Args:
            rows: The same rows as for `make`.

        Raises:
            DataError: If a part is missing or damaged.
        """
        values = np.empty((len(rows), _VALUES), dtype=np.uint8)
        done = 0
        for task in self._tasks(rows):
            part = _read(Path(task.path))
            values[done : done + len(task.rows)] = part
            done += len(task.rows)
        return values

    def of(self, rows: Int64[np.ndarray, "n"], engine: Engine) -> UInt8[np.ndarray, "n values"]:
        """Thumbnails of some rows, of which missing parts are made; see `make` and `read`."""
        self.make(rows, engine)
        return self.read(rows)

    def remove(self) -> None:
        """Remove the folder of the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tasks(self, rows: Int64[np.ndarray, "n"]) -> list[_Task]:
        sweep_temporary(self.folder)
        found = []
        for start in range(0, len(rows), IMAGES_OF_A_PART):
            some = np.ascontiguousarray(rows[start : start + IMAGES_OF_A_PART], dtype="<i8")
            state = hashlib.sha256(json.dumps([_VERSION, self.fingerprint, SIDE]).encode())
            state.update(some.tobytes())
            path = self.folder / f"{state.hexdigest()[:32]}.parquet"
            found.append(_Task(str(self.manifest), self.fingerprint, some, str(path)))
        return found


@lru_cache(maxsize=1)
def _opened(manifest: str, fingerprint: str) -> ManifestImages:
    """The images of a manifest, which one process opens once."""
    images = ManifestImages(Path(manifest), DEFAULT_OPTIONS)
    if images.fingerprint != fingerprint:
        raise DataError(
            f"found other images in {manifest} ({images.fingerprint[:12]}); expected {fingerprint[:12]}, the same "
            "manifest on each machine"
        )
    return images


def _make(task: _Task, count: Count) -> None:
    if Path(task.path).exists():  # of a worker that was lost after it wrote the part
        return
    images = _opened(task.manifest, task.fingerprint)
    values = []
    for start in range(0, len(task.rows), _AT_ONCE):
        rows = task.rows[start : start + _AT_ONCE]
        found, valid = images.read(torch.from_numpy(rows))
        if not bool(valid.all()):
            row = int(rows[int((~valid).nonzero()[0, 0])])
            raise DataError(
                f"found {images.name(row)} of {task.manifest}, which cannot be read ({images.reason(row)}); see "
                "`ssl-lightning data check`"
            )
        values += [thumbnail(image.numpy()) for image in found]
        count(len(rows), 0)
    table = pa.table(
        [pa.array(task.rows), pa.array([value.tobytes() for value in values], pa.binary(_VALUES))], schema=_SCHEMA
    )
    write_atomically(
        Path(task.path),
        lambda file: parquet.write_table(table, file, compression="zstd", write_page_checksum=True),
    )


def _read(path: Path) -> UInt8[np.ndarray, "n values"]:
    try:
        column = parquet.read_table(path, columns=["thumbnail"], page_checksum_verification=True)["thumbnail"]
    except FileNotFoundError as error:
        raise DataError(
            f"found no part {path}, which a worker wrote; expected a folder that all machines share: give --out in one"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"found {path}, which is no whole part ({error}); remove it, and give the command again"
        ) from error
    return np.frombuffer(b"".join(column.to_pylist()), dtype=np.uint8).reshape(-1, _VALUES)


def thumbnail(pixels: UInt8[np.ndarray, "3 h w"]) -> UInt8[np.ndarray, "values"]:
    """The thumbnail of an image as a row of values."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(-1)
