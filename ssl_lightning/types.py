"""What travels from a loader to a method, and the letters of its shapes.

Letters, once for the whole project: `B` batch, `N` training samples, `D` width, `K` clusters, `V` views,
`H` clusterings (heads), `L` queue length, `h w` pixels.
"""

from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

UNLABELLED = -1
"""The label of an image that has none, and the cluster of an image that could not be read."""
Weights = Literal["online", "ema"]
"""Which weights of a method see an image: those that learn, or their running average."""


class RawBatch(NamedTuple):
    """What every loader yields: images as they lie in memory or on disk.

    Attributes:
        index: Row of each sample in this run's training set (0..N-1): the key of all memory.
        images: One uint8 image each where all have one size, else one stack of finished crops per view.
        label: The source's own class, `UNLABELLED` where it has none.
        valid: False for an image that could not be read; its pixels are zeros.
    """

    index: Int[Tensor, "B"]  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a batch
    images: UInt8[Tensor, "B 3 h w"] | list[UInt8[Tensor, "B 3 _h _w"]]
    label: Int[Tensor, "B"]
    valid: Bool[Tensor, "B"]


class Batch(NamedTuple):
    """What every method sees: invalid rows dropped, views made and normalized, on the device of the model.

    Attributes:
        index: Row of each sample in this run's training set.
        views: One stack per view, global crops first, then local ones.
        label: The source's own class; never used by a self-supervised loss.
    """

    index: Int[Tensor, "B"]  # type: ignore[assignment]  # as above
    views: list[Float[Tensor, "B 3 _h _w"]]
    label: Int[Tensor, "B"]
