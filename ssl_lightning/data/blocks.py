"""Parts of a batch that stay in a CPU's cache while several operations run over them."""

from collections.abc import Iterator

from jaxtyping import Bool
from torch import Tensor

_VALUES = 1 << 18
"""Of a part: 1 MiB of float32. Half as many cost more dispatching, twice as many more cache misses and page faults."""


def chunks(images: Tensor, count: int | None = None) -> Iterator[slice]:
    """Parts of `count` images (None: all of them) like these; on a GPU all in one part."""
    total = len(images) if count is None else count
    step = max(1, _VALUES // max(1, images[:1].numel())) if images.device.type == "cpu" else max(1, total)
    for start in range(0, total, step):
        yield slice(start, start + step)


def blocks(images: Tensor, chosen: Bool[Tensor, "B"]) -> Iterator[tuple[Tensor, Tensor]]:
    """The chosen images in parts: their numbers, on the device of the images, and the images.

    What is done to a part in place is done to `images`: it is written back when the loop goes on.

    Args:
        images: Images along the first axis.
        chosen: Which of them, on the CPU, so that no GPU is waited for.
    """
    rows = chosen.nonzero().squeeze(1)
    for part in chunks(images, len(rows)):
        some = on(rows[part], images)
        if len(some) == 1:  # large images come one by one and need no copy
            yield some, images.narrow(0, int(rows[part]), 1)
        else:
            block = images.index_select(0, some)
            yield some, block
            images.index_copy_(0, some, block)


def on(values: Tensor, images: Tensor) -> Tensor:
    """Parameters drawn on the CPU, on the device of the images, without waiting for it."""
    return values.to(images.device, non_blocking=True)
