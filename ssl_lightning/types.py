"""The batches that loaders and methods exchange, and the letters of tensor shapes.

Letters of shapes in the whole package: `B` batch, `N` training samples, `D` width, `K` clusters, `V` views,
`H` clusterings (heads), `L` queue length, `h w` pixels.
"""

from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, zeros_like

UNLABELLED = -1
"""The label of an image without a class, and the cluster of an image that could not be read."""
Weights = Literal["online", "ema"]
"""The weights that compute features: the trained ones, or their exponential moving average."""


def label_counts(labels: Int[Tensor, "N"], num_labels: int = 0) -> Int[Tensor, "K"]:
    """Number of rows of each label, such as the sizes of clusters; rows without a label are left out.

    Args:
        labels: Label of each row, -1 for none.
        num_labels: Smallest length of the result, for labels that no row has.
    """
    return labels[labels != UNLABELLED].bincount(minlength=num_labels)


class _RawFields(NamedTuple):
    index: Int[Tensor, "B"]  # type: ignore[assignment]  # shadows tuple.index
    images: UInt8[Tensor, "B 3 h w"] | list[UInt8[Tensor, "B 3 _h _w"]]
    label: Int[Tensor, "B"]
    valid: Bool[Tensor, "B"]
    occurrence: Int[Tensor, "B"]


class RawBatch(_RawFields):
    """The batch of every loader: images as they are stored.

    Attributes:
        index: Row of each sample in the training set of this run (0..N-1), the key of all per-sample state.
        images: One uint8 tensor if all images have one size, else one stack of crops per view.
        label: Class in the source, `UNLABELLED` if there is none.
        valid: False for an image that could not be read; its pixels are zeros.
        occurrence: Number of earlier appearances of the row in this epoch, over all processes; zeros by default. It is
            a key of the random views, so that a row that is sampled again has other views.
    """

    __slots__ = ()

    def __new__(
        cls,
        index: Int[Tensor, "B"],
        images: UInt8[Tensor, "B 3 h w"] | list[UInt8[Tensor, "B 3 _h _w"]],
        label: Int[Tensor, "B"],
        valid: Bool[Tensor, "B"],
        occurrence: Int[Tensor, "B"] | None = None,
    ) -> "RawBatch":
        """A batch of rows that appear for the first time, unless `occurrence` is given."""
        return super().__new__(
            cls, index, images, label, valid, zeros_like(index) if occurrence is None else occurrence
        )


class Batch(NamedTuple):
    """The batch of every method: readable rows only, with normalized views, on the device of the model.

    Attributes:
        index: Row of each sample in the training set of this run.
        views: One stack per view, global crops first, then local crops.
        label: Class in the source; never used by a self-supervised loss.
    """

    index: Int[Tensor, "B"]  # type: ignore[assignment]  # as above
    views: list[Float[Tensor, "B 3 _h _w"]]
    label: Int[Tensor, "B"]
