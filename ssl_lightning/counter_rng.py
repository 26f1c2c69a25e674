"""Counter-based random numbers: every number is a pure function of (seed, purpose, epoch, row, occurrence, view).

There is no generator state. The numbers therefore do not depend on the number of workers or processes, on a resume, or
on the order of calls. The mixer is the 64-bit finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable
pseudorandom number generators") in the wrap-around arithmetic of int64, so that CPU and GPU give the same numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_MASK = (1 << 64) - 1
_FEISTEL, _ROUNDS = 1, 8
"""A further key of the rounds of a Feistel network, and their number."""


class Purpose(IntEnum):
    """The use of a random number; two purposes never share one. The values are fixed, since old runs depend on them."""

    ORDER = 1
    """The order of samples in an epoch."""
    BALANCE = 2
    """Balanced sampling: the members of a cluster and their order."""
    VIEW = 3
    """Crop, flip, color jitter and other parameters of views."""
    CLUSTERING = 4
    """Initialization of k-means."""
    HEAD = 5
    """Weights of a head that is reset during training."""
    REFERENCE = 6
    """The reference set of probes during training."""
    EPISODE = 7
    """Few-shot episodes."""
    SYNTHETIC = 8
    """Synthetic images."""
    BANK = 9
    """Initial rows of a memory bank."""
    LOW_SHOT = 10
    """The labeled subset of a low-shot probe."""
    NEGATIVES = 11
    """Negatives sampled from a memory bank."""
    LABEL_NOISE = 12
    """Label noise: the replaced labels and their new classes."""
    STUDENT = 13
    """Initial weights of a student, which must differ from those of a teacher of the same seed."""
    SUBSET = 14
    """Samples of a collection: which rows of a cluster, and which clusters get one row more."""
    LONG_TAIL = 15
    """The images of each class in a long-tailed selection."""
    BLOCKS = 16
    """The order of blocks of rows, and of the rows in each window of blocks."""


def bits(
    seed: int,
    purpose: Purpose,
    epoch: int,
    rows: Int[Tensor, "B"],
    view: int = 0,
    occurrence: Int[Tensor, "B"] | None = None,
) -> Int[Tensor, "B"]:
    """One 64-bit number per row, uniform over int64, on the device of `rows`.

    Args:
        seed: Seed of the run.
        purpose: The use of the number.
        epoch: Epoch of the run.
        rows: Rows of the training set.
        view: A further key.
        occurrence: Number of earlier appearances of each row in its epoch; None for 0.
    """
    state = _fold(seed, purpose, epoch, view)
    numbers = _mix(rows.long() * _GOLDEN + state)
    if occurrence is None or not bool(occurrence.any()):
        return numbers
    return torch.where(occurrence > 0, _mix(numbers + occurrence * _MIX_1), numbers)


def uniform(
    seed: int,
    purpose: Purpose,
    epoch: int,
    rows: Int[Tensor, "B"],
    view: int = 0,
    count: int = 1,
    occurrence: Int[Tensor, "B"] | None = None,
) -> Float[Tensor, "B count"]:
    """`count` float32 numbers in [0, 1) for each row, on the device of `rows`; see `bits`."""
    start = bits(seed, purpose, epoch, rows, view, occurrence).unsqueeze(1)  # [B, 1]
    steps = torch.arange(1, count + 1, device=rows.device) * _GOLDEN
    return (_shift(_mix(start + steps), 40).float()) * 2.0**-24  # the upper 24 bits fill a float32 exactly


def permutation(seed: int, purpose: Purpose, epoch: int, size: int) -> Int[Tensor, "N"]:
    """A random permutation of `size` rows, on the CPU."""
    return torch.argsort(bits(seed, purpose, epoch, torch.arange(size)), stable=True)


def permuted(seed: int, purpose: Purpose, epoch: int, places: Int[Tensor, "B"], size: int) -> Int[Tensor, "B"]:
    """The rows at some places of a random permutation of `size` rows, without an array of all rows.

    A Feistel network with keyed rounds permutes the numbers of an even number of bits; a result of `size` or more is
    permuted again until it is smaller (cycle walking; Black, Rogaway 2002, "Ciphers with arbitrary finite domains").
    It is another permutation than that of `permutation`.

    Args:
        seed: Seed of the run.
        purpose: The use of the permutation.
        epoch: Epoch of the run.
        places: Places from 0 to `size` - 1.
        size: Number of rows.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = [_fold(seed, purpose, epoch, _FEISTEL, number) for number in range(_ROUNDS)]
    rows = _feistel(places.long(), half, keys)
    while bool((outside := rows >= size).any()):
        rows[outside] = _feistel(rows[outside], half, keys)
    return rows


def _feistel(values: Tensor, half: int, keys: list[int]) -> Tensor:
    mask = (1 << half) - 1
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right * _GOLDEN + key) & mask)
    return (left << half) | right


def number(seed: int, purpose: Purpose, epoch: int = 0, view: int = 0) -> int:
    """One non-negative 63-bit number: a seed for a `torch.Generator` or a clusterer."""
    return _fold(seed, purpose, epoch, view) & ((1 << 63) - 1)


@contextmanager
def separate_rng(purpose: Purpose) -> Iterator[None]:
    """A context in which torch's CPU generator starts from a seed that is sampled from the global generator.

    The result is still a function of the run's seed, but differs from what a run with that seed samples for other
    purposes.
    """
    seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number(seed, purpose))
        yield


def _fold(*keys: int) -> int:
    """Fold all keys into one int64. Python integers are used: tensors without dimensions take fifty times as long."""
    state = 0
    for key in keys:
        state = _mix_number((state + _GOLDEN + int(key)) & _MASK)
    return state - (1 << 64) if state >> 63 else state


def _mix_number(x: int) -> int:
    """The mixer `_mix` for a Python integer."""
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
    return x ^ (x >> 31)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own shift keeps the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)
