"""The clusterings that a run has saved: names of the files, their metadata, and which of many are kept."""

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ssl_lightning.errors import DataError

FOLDER = "clusters"
"""Folder of the files in that of a run."""
MOST_KEPT = 20
"""Clusterings of a run that are kept, beside the newest one."""
_CHECKPOINT = re.compile(r"step-(\d+)\.ckpt")
_NAME = re.compile(r"step-(\d+)\.safetensors")


def cluster_file(run: str | Path, step: int) -> Path:
    """The file of the clusters at a step of a run."""
    return Path(run) / FOLDER / f"step-{step}.safetensors"


def cluster_files(run: str | Path) -> list[Path]:
    """The files of clusters of a run, the earliest first; none where it has saved none."""
    found = [path for path in (Path(run) / FOLDER).glob("step-*.safetensors") if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def clusters_of(path: str | Path) -> Path:
    """The file of clusters that a path stands for.

    Args:
        path: A file of clusters; the folder of a run, for its newest clusters; or a checkpoint of a run, for the newest
            ones at its step.

    Raises:
        DataError: For a run or a checkpoint without clusters.
    """
    given = Path(path)
    if given.suffix != ".ckpt" and not given.is_dir():
        return given
    of_step = _CHECKPOINT.fullmatch(given.resolve().name)
    run = given if given.is_dir() else given.resolve().parent.parent
    found = [file for file in cluster_files(run) if of_step is None or step_of(file) <= int(of_step[1])]
    if not found:
        raise DataError(
            f"found no clusters of {given} in {run / FOLDER}; expected step-<n>.safetensors: "
            "make a file with ssl-lightning predict --config clusters --ckpt_path CHECKPOINT, and give that"
        )
    return found[-1]


def step_of(path: Path) -> int:
    """The step in the name of a file.

    Raises:
        ValueError: For another name.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"found {path}; expected step-<n>.safetensors")
    return int(match[1])


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a file without its tensors; empty if it cannot be read."""
    try:
        with safe_open(str(path), "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def is_kept(number: int, newest: int, most: int = MOST_KEPT) -> bool:
    """Whether a clustering is kept once there is a newer one.

    The distance between those that are kept is the smallest power of two with which they are at most `most`, so that
    they are evenly spaced, and at least half of `most`, for a run of any length. The first and the newest are kept.

    Args:
        number: Number of the clustering, from 0.
        newest: Number of the newest clustering.
        most: Largest number of kept clusterings, without the newest.
    """
    spacing = 1
    while newest // spacing >= most:
        spacing *= 2
    return number % spacing == 0 or number == newest
