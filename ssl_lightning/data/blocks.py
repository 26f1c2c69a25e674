"""Blocks of a batch that stay in a CPU's cache while several operations are applied to them."""

from collections.abc import Iterator

from jaxtyping import Bool
from torch import Tensor

_VALUES = 1 << 18
"""Values per block: 1 MiB of float32. Smaller blocks cost dispatching, larger ones cache misses and page faults."""


def chunks(images: Tensor, count: int | None = None) -> Iterator[slice]:
    """Slices of `count` images (None: all of them); on a GPU a single slice."""
    total = len(images) if count is None else count
    step = max(1, _VALUES // max(1, images[:1].numel())) if images.device.type == "cpu" else max(1, total)
    for start in range(0, total, step):
        yield slice(start, start + step)


def blocks(images: Tensor, chosen: Bool[Tensor, "B"]) -> Iterator[tuple[Tensor, Tensor]]:
    """The selected images in blocks: their indices, on the device of the images, and the images.

    Changes of a block in place are changes of `images`: the block is written back before the next one.

    Args:
        images: Images along the first axis.
        chosen: Whether each image is selected; on the CPU, to avoid a synchronization with the GPU.
    """
    rows = chosen.nonzero().squeeze(1)
    for part in chunks(images, len(rows)):
        some = on(rows[part], images)
        if len(some) == 1:  # a single large image needs no copy
            yield some, images.narrow(0, int(rows[part]), 1)
        else:
            block = images.index_select(0, some)
            yield some, block
            images.index_copy_(0, some, block)


def on(values: Tensor, images: Tensor) -> Tensor:
    """Copy CPU parameters to the device of the images without a synchronization."""
    return values.to(images.device, non_blocking=True)
