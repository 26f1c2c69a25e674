"""Small copies and simple statistics of the images of a manifest: each image is decoded once, in several processes."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image

from ssl_lightning.data.duplicates import SIDE
from ssl_lightning.data.manifest.dedup import thumbnails_of
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.thumbnails import thumbnail
from ssl_lightning.data.options import DEFAULT_OPTIONS
from ssl_lightning.errors import RunStoppedError
from ssl_lightning.progress import progress

THUMBNAIL = 96
"""Longer side of a thumbnail in pixels."""
CELLS = 4
"""Edge densities are those of CELLS x CELLS parts of the image."""
COLORS = 8
"""Side of the small color image in the statistics."""
_AT_ONCE = 64
_EDGE = 24
"""Difference of neighboring gray values, of 255, that counts as an edge."""
DESCRIBED = (
    f"simple statistics of the pixels: the colors of a thumbnail of {COLORS} x {COLORS} pixels, mean and "
    f"standard deviation of each channel, and the share of edges in {CELLS} x {CELLS} parts of the image"
)
"""What `statistics` has, in words."""


@dataclass(frozen=True, eq=False)
class SmallImages:
    """Small copies of some images.

    Attributes:
        rows: Rows of the dataset, ascending.
        valid: Whether each image could be decoded.
        thumbnails: Each image in the upper left corner of a square of `THUMBNAIL` pixels; the rest repeats its edge.
        shapes: Height and width of each thumbnail.
        compared: Thumbnails of `SIDE` x `SIDE` pixels, which `data dedup` compares.
        statistics: See `DESCRIBED`.
    """

    rows: Int64[np.ndarray, "n"]
    valid: Bool[np.ndarray, "n"]
    thumbnails: UInt8[np.ndarray, "n side side 3"]
    shapes: Int64[np.ndarray, "n 2"]
    compared: UInt8[np.ndarray, "n values"]
    statistics: Float32[np.ndarray, "n D"]

    def compared_of(self, images: ManifestImages, rows: Int64[np.ndarray, "q"]) -> UInt8[np.ndarray, "q values"]:
        """`compared` of any rows of the dataset; those that are not held are decoded now.

        Args:
            images: The dataset.
            rows: Its rows.
        """
        places = np.searchsorted(self.rows, rows).clip(max=max(0, len(self.rows) - 1))
        held = self.rows[places] == rows if len(self.rows) else np.zeros(len(rows), dtype=bool)
        values = np.empty((len(rows), SIDE * SIDE * 3), dtype=np.uint8)
        values[held] = self.compared[places[held]]
        values[~held] = thumbnails_of([images], rows[~held])
        return values


@contextmanager
def small_images(
    manifest: Path, images: ManifestImages, rows: Int64[np.ndarray, "n"], workers: int
) -> Iterator[SmallImages]:
    """Decode some images of a manifest, in the folder of temporary files, which is emptied at the end.

    Args:
        manifest: The file, or a folder of them.
        images: Its images.
        rows: Their rows, ascending.
        workers: Number of processes; this process does the work alone for one.

    Raises:
        RunStoppedError: If a process died.
    """
    shape = (max(1, len(rows)), THUMBNAIL, THUMBNAIL, 3)
    with TemporaryDirectory(prefix="ssl-lightning-") as folder:
        path = Path(folder) / "thumbnails"
        thumbnails = np.memmap(path, np.uint8, "w+", shape=shape)
        starts = range(0, len(rows), _AT_ONCE)
        tasks = [(start, rows[start : start + _AT_ONCE]) for start in starts]
        parts = []
        with progress(range(len(rows)), "decoding images", "images", shown=bool(tasks)) as bar:
            for part in _carry_out(tasks, manifest, images, path, shape, min(workers, len(tasks))):
                parts.append(part)
                bar.update(len(part[0]))
        joined = [np.concatenate(each) for each in zip(*parts, strict=True)] if parts else list(_empty())
        valid, shapes, compared, values = joined
        yield SmallImages(rows, valid, thumbnails[: len(rows)], shapes, compared, standardized(values))


_Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_Task = tuple[int, np.ndarray]
_opened: tuple[ManifestImages, np.ndarray] | None = None
"""The images and the file of thumbnails in a process of the pool."""


def _carry_out(
    tasks: list[_Task], manifest: Path, images: ManifestImages, path: Path, shape: tuple[int, ...], workers: int
) -> Iterator[_Part]:
    """The parts in order."""
    if workers <= 1:
        thumbnails = np.memmap(path, np.uint8, "r+", shape=shape)
        yield from (shrink(images, thumbnails, task) for task in tasks)
        return
    context = multiprocessing.get_context("forkserver")  # imports once, and forks a process without threads
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(workers, context, partial(_prepare, manifest, path, shape)) as pool:
        try:
            yield from pool.map(_shrink_in_process, tasks)
        except BrokenProcessPool as error:
            raise RunStoppedError(
                "found a process that died while it decoded images, perhaps of too little memory; expected none to: "
                "give the same command with fewer --workers"
            ) from error


def _prepare(manifest: Path, path: Path, shape: tuple[int, ...]) -> None:
    global _opened
    torch.set_num_threads(1)
    _opened = ManifestImages(manifest, DEFAULT_OPTIONS), np.memmap(path, np.uint8, "r+", shape=shape)


def _shrink_in_process(task: _Task) -> _Part:
    assert _opened is not None
    return shrink(*_opened, task)


def shrink(images: ManifestImages, thumbnails: UInt8[np.ndarray, "N side side 3"], task: _Task) -> _Part:
    """Decode some images, write their thumbnails, and return what else `SmallImages` has of them.

    Args:
        images: The images.
        thumbnails: Of all of them.
        task: Position of the first one among the thumbnails, and rows of the dataset.
    """
    start, rows = task
    found, valid = images.read(torch.from_numpy(rows))
    shapes, compared, values = [], [], []
    for place, image in enumerate(found):
        content = image.numpy()
        whole = Image.fromarray(np.ascontiguousarray(content.transpose(1, 2, 0)))
        small = fitted(whole)
        pixels = np.asarray(small)
        height, width = pixels.shape[:2]
        padding = ((0, THUMBNAIL - height), (0, THUMBNAIL - width), (0, 0))
        thumbnails[start + place] = np.pad(pixels, padding, mode="edge")
        shapes.append((height, width))
        compared.append(thumbnail(content))
        values.append(statistics(pixels))
    return valid.numpy(), np.array(shapes, dtype=np.int64), np.stack(compared), np.stack(values)


def fitted(image: Image.Image) -> Image.Image:
    """An image resized to the longer side of a thumbnail; small images are enlarged without smoothing."""
    scale = THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC
    return image.resize(size, how, reducing_gap=2.0)


def statistics(pixels: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "D"]:
    """The statistics of an image, see `DESCRIBED`; each of the three kinds is a block."""
    small = Image.fromarray(pixels).resize((COLORS, COLORS), Image.Resampling.BOX)
    colors = np.asarray(small, dtype=np.float32).reshape(-1) / 255
    flat = pixels.reshape(-1, 3).astype(np.float32) / 255
    gray = pixels.astype(np.int16).sum(2) // 3
    edges = np.zeros(gray.shape, dtype=np.float32)
    edges[:, 1:] += np.abs(np.diff(gray, axis=1)) > _EDGE
    edges[1:] += np.abs(np.diff(gray, axis=0)) > _EDGE
    shares = np.asarray(Image.fromarray(edges).resize((CELLS, CELLS), Image.Resampling.BOX)).reshape(-1)
    return np.concatenate([colors, flat.mean(0), flat.std(0), shares]).astype(np.float32)


def standardized(values: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
    """Statistics of all images with mean 0, such that each kind has the same variance."""
    if not len(values):
        return values
    centered = values - values.mean(0)
    ends = np.cumsum([COLORS * COLORS * 3, 6, CELLS * CELLS]).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        block = centered[:, start:end]
        block /= max(float(np.sqrt((block**2).sum(1).mean())), 1e-6)
    return centered


def _empty() -> _Part:
    return (
        np.zeros(0, dtype=bool),
        np.zeros((0, 2), dtype=np.int64),
        np.zeros((0, SIDE * SIDE * 3), dtype=np.uint8),
        np.zeros((0, COLORS * COLORS * 3 + 6 + CELLS * CELLS), dtype=np.float32),
    )
