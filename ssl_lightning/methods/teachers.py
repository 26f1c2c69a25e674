"""Teachers: trained networks that another one learns from, read from their checkpoints."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_lightning.checkpoints import load_model
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.methods.method import Method
from ssl_lightning.models.ema import EmaTeacher
from ssl_lightning.models.heads import Projector
from ssl_lightning.types import Weights


def read_teacher(path: str, argument: str, student: Method) -> Method:
    """The method in a checkpoint, frozen and in eval mode, on the CPU.

    Args:
        path: Checkpoint of a finished run.
        argument: The argument of the student's constructor, for the error.
        student: The method that learns from it.

    Raises:
        UsageError: For a missing file, one that is no checkpoint, or a teacher with another preprocessing.
    """
    if not Path(path).is_file():
        raise DataError(
            f"found no teacher at {path}; expected the checkpoint of a finished run: give --model.{argument} "
            "runs/<name>/checkpoints/last.ckpt"
        )
    teacher: Method = load_model(path)
    ours, theirs = student.preprocessing, teacher.preprocessing
    if (name := ours.difference(theirs)) is not None:
        raise UsageError(
            f"found {name}={getattr(ours, name)} and the teacher {path}, which was trained with "
            f"{getattr(theirs, name)}; expected the same, since both take the same views as input: give --data.{name} "
            "the teacher's"
        )
    return teacher.requires_grad_(False)


@torch.no_grad()
def embedding_network(path: str, teacher: Method, weights: Weights, width: int, option: str) -> nn.Module:
    """The network from images to the embeddings of a teacher.

    Args:
        path: Its checkpoint, for the error.
        teacher: A method with a backbone and a projector of several layers.
        weights: "ema" for the averaged weights.
        width: The expected width of the embeddings.
        option: The argument of the student's constructor for it, for the error.

    Raises:
        UsageError: For a teacher without projector or averaged weights, or with embeddings of another width.
    """
    projector = getattr(teacher, "projector", None)
    if not isinstance(projector, Projector):
        raise UsageError(
            f"found a {type(teacher).__name__} in {path}; expected a method with a projector, such as MoCLR, BYOL or "
            "SimCLR: give --model.base and --model.experts checkpoints of one"
        )
    network: nn.Module = nn.Sequential(teacher.backbone, projector)
    if weights == "ema":
        average = getattr(teacher, "teacher", None)
        if not isinstance(average, EmaTeacher):
            raise UsageError(
                f"found teacher_weights='ema' and a {type(teacher).__name__} in {path}, which keeps no averaged "
                "weights: give --model.teacher_weights online"
            )
        network = average.network
    side = teacher.preprocessing.image_size
    found = network(torch.zeros(1, 3, side, side)).shape[1]
    if found != width:
        raise UsageError(
            f"found embeddings of {found} numbers in {path} and {option}={width}; expected the same: give "
            f"--model.{option} {found}"
        )
    return network


def megabytes(networks: Iterable[nn.Module]) -> float:
    """Size of their parameters and buffers, in millions of bytes."""
    tensors = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Time of the second call of a function: the first one reserves memory and selects kernels."""
    elapsed = 0.0
    for _ in range(2):
        start = time.perf_counter()
        function()
        if device.type != "cpu":  # other devices compute asynchronously
            torch.accelerator.synchronize(device)
        elapsed = time.perf_counter() - start
    return elapsed
