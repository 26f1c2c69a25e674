"""Finished networks that another one learns from: read from their files, if both can see the same views."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ssl_lightning.checkpoints import load_model
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.methods.method import Method
from ssl_lightning.models.heads import Projector
from ssl_lightning.types import Weights


def read_teacher(path: str, argument: str, student: Method) -> Method:
    """The method in a checkpoint, frozen and in eval mode, on the CPU.

    Args:
        path: Checkpoint of a finished run.
        argument: Of the student's constructor that names it, for the error.
        student: Who learns from it.

    Raises:
        ValueError: For a file that is not there or no checkpoint, or a teacher that was trained on images of other
            size or normalization than the student's.
    """
    if not Path(path).is_file():
        raise DataError(
            f"found no teacher at {path}; expected the checkpoint of a finished run: give --model.{argument} "
            "runs/<name>/checkpoints/last.ckpt"
        )
    teacher: Method = load_model(path)
    for name in ("image_size", "mean", "std"):
        theirs, ours = getattr(teacher, name), getattr(student, name)
        if _plain(theirs) != _plain(ours):
            raise UsageError(
                f"found {name}={ours} and the teacher {path}, which was trained with {theirs}; expected the same, for "
                f"they see the same views: give --data.{name} the teacher's"
            )
    return teacher.requires_grad_(False)


@torch.no_grad()
def embedding_network(path: str, teacher: Method, weights: Weights, width: int, option: str) -> nn.Module:
    """Images to the embeddings of a teacher, and nothing else of it.

    Args:
        path: Where it was read, for the error.
        teacher: With a backbone and a projector of several layers.
        weights: "ema" for the averaged weights.
        width: Of the embeddings that are expected.
        option: Of the student's constructor that says so, for the error.

    Raises:
        ValueError: For a teacher without projector or averaged weights, or with embeddings of another width.
    """
    projector = getattr(teacher, "projector", None)
    if not isinstance(projector, Projector):
        raise UsageError(
            f"found a {type(teacher).__name__} in {path}; expected a method with a projector, such as MoCLR, BYOL or "
            "SimCLR: give --model.base and --model.experts checkpoints of one"
        )
    network: nn.Module = nn.Sequential(teacher.backbone, projector)
    if weights == "ema":
        if not teacher.keeps_average:
            raise UsageError(
                f"found teacher_weights='ema' and a {type(teacher).__name__} in {path}, which keeps no averaged "
                "weights: give --model.teacher_weights online"
            )
        network = cast(Any, teacher).teacher.network
    found = network(torch.zeros(1, 3, teacher.image_size, teacher.image_size)).shape[1]
    if found != width:
        raise UsageError(
            f"found embeddings of {found} numbers in {path} and {option}={width}; expected the same: give "
            f"--model.{option} {found}"
        )
    return network


def megabytes(networks: Iterable[nn.Module]) -> float:
    """What their parameters and buffers take, in millions of bytes."""
    tensors = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


def seconds(answer: Callable[[], Any], device: torch.device) -> float:
    """How long an answer takes on a device that was asked before: the first time it reserves memory, picks kernels."""
    elapsed = 0.0
    for _ in range(2):
        start = time.perf_counter()
        answer()
        if device.type != "cpu":  # others only take note of what to do
            torch.accelerator.synchronize(device)
        elapsed = time.perf_counter() - start
    return elapsed


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
