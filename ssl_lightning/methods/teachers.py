"""read_teacher: a finished network that another one learns from, if both can see the same views."""

from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints import load_model
from ssl_lightning.methods.method import Method


def read_teacher(path: str, argument: str, student: Method) -> Method:
    """The method in a checkpoint, frozen and in eval mode, on the CPU.

    Args:
        path: Checkpoint of a finished run.
        argument: Of the student's constructor that names it, for the error.
        student: Who learns from it.

    Raises:
        ValueError: For a file that is not there or no checkpoint, or a teacher that was trained on pictures of other
            size or normalisation than the student's.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"found no teacher at {path}; expected the checkpoint of a finished run: give --model.{argument} "
            "runs/<name>/checkpoints/last.ckpt"
        )
    teacher: Method = load_model(path)
    for name in ("image_size", "mean", "std"):
        theirs, ours = getattr(teacher, name), getattr(student, name)
        if _plain(theirs) != _plain(ours):
            raise ValueError(
                f"found {name}={ours} and the teacher {path}, which was trained with {theirs}; expected the same, for "
                f"they see the same views: give --data.{name} the teacher's"
            )
    return teacher.requires_grad_(False)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
