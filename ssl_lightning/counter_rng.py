"""Counter-based random numbers: every draw is a pure function of (seed, purpose, epoch, row, view).

No generator is carried along, so neither the number of workers or processes, nor a resume, nor the order of calls can
change what is drawn. The mixer is the 64-bit finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable
pseudorandom number generators"), in the wrap-around arithmetic of int64, so CPU and GPU draw the same numbers.
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


class Purpose(IntEnum):
    """What a number is drawn for; two purposes never share a draw. Numbers are for ever, old runs depend on them."""

    ORDER = 1
    """Who comes when in an epoch."""
    BALANCE = 2
    """Which members of a cluster are drawn, and their order."""
    VIEW = 3
    """Crop, flip, jitter and kin."""
    CLUSTERING = 4
    """Where k-means starts."""
    HEAD = 5
    """Weights of a head that is drawn afresh during training."""
    REFERENCE = 6
    """Which training rows are evaluated against while training."""
    EPISODE = 7
    """Few-shot episodes."""
    SYNTHETIC = 8
    """Generated images."""
    BANK = 9
    """First rows of a memory bank."""
    LOW_SHOT = 10
    """Which share of the labels a probe may see."""
    NEGATIVES = 11
    """Rows of a memory that an embedding is to be told from."""
    LABEL_NOISE = 12
    """Which labels are replaced, and by which class."""
    STUDENT = 13
    """First weights of a network that learns from what another one, of the same seed, has learned."""


def bits(seed: int, purpose: Purpose, epoch: int, rows: Int[Tensor, "B"], view: int = 0) -> Int[Tensor, "B"]:
    """One 64-bit number a row, uniform over all int64, on the device of `rows`."""
    state = _fold(seed, purpose, epoch, view)
    return _mix(rows.long() * _GOLDEN + state)


def uniform(
    seed: int, purpose: Purpose, epoch: int, rows: Int[Tensor, "B"], view: int = 0, count: int = 1
) -> Float[Tensor, "B count"]:
    """`count` float32 numbers in [0, 1) for each row, on the device of `rows`."""
    start = bits(seed, purpose, epoch, rows, view).unsqueeze(1)  # [B, 1]
    steps = torch.arange(1, count + 1, device=rows.device) * _GOLDEN
    return (_shift(_mix(start + steps), 40).float()) * 2.0**-24  # the upper 24 bits fill a float32 exactly


def permutation(seed: int, purpose: Purpose, epoch: int, size: int) -> Int[Tensor, "N"]:
    """A random order of `size` rows, on the CPU."""
    return torch.argsort(bits(seed, purpose, epoch, torch.arange(size)), stable=True)


def number(seed: int, purpose: Purpose, epoch: int = 0, view: int = 0) -> int:
    """One non-negative 63-bit number: a seed for a `torch.Generator` or a clusterer."""
    return _fold(seed, purpose, epoch, view) & ((1 << 63) - 1)


@contextmanager
def separate_rng(purpose: Purpose) -> Iterator[None]:
    """What torch draws on the CPU within has a generator of its own, whose seed the global one draws.

    So it is still a function of the run's seed, but equals nothing that a run of that seed draws for another purpose.
    """
    seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number(seed, purpose))
        yield


def _fold(*keys: int) -> int:
    """All keys into one int64. In Python's own integers: on tensors without dimensions it takes fifty times longer."""
    state = 0
    for key in keys:
        state = _mix_number((state + _GOLDEN + int(key)) & _MASK)
    return state - (1 << 64) if state >> 63 else state


def _mix_number(x: int) -> int:
    """The same mixer as `_mix`."""
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
    return x ^ (x >> 31)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)
