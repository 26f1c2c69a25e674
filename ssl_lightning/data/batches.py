"""BatchMaker: from a raw batch to a batch of normalized views."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ssl_lightning.data.views import View, center_view, expand, finish_crops, make_views
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.types import Batch, RawBatch


@dataclass(frozen=True)
class BatchMaker:
    """Drops the unreadable rows of a raw batch, makes the views of the others and normalizes them.

    Attributes:
        kinds: Kinds of training views, global crops first.
        preprocessing: Side of a full-size view in pixels, and the normalization.
        seed: Of the random views.
        center_fraction: Side of the center view as a fraction of the image's short side.
    """

    kinds: list[View]
    preprocessing: Preprocessing
    seed: int
    center_fraction: float

    def augment(self, raw: RawBatch, epoch: int) -> Batch:
        """All training views: a function of (seed, epoch, row, occurrence, view)."""
        raw = _readable(raw)
        key = {"seed": self.seed, "epoch": epoch, "rows": raw.index, "occurrence": raw.occurrence}
        if isinstance(raw.images, list):
            crops = zip(raw.images, expand(self.kinds), strict=True)
            made = [finish_crops(crop, view, number=number, **key) for number, (crop, view) in enumerate(crops)]
            return _batch(raw, [self.preprocessing.normalize_(view) for view in made])
        views: list[Tensor] = []
        for view in self.kinds:
            numbers = range(len(views), len(views) + view.count)
            side = view.pixels(self.preprocessing.image_size)
            made = make_views(raw.images, view, side, numbers=numbers, **key)
            views += self.preprocessing.normalize_(made).chunk(view.count)
        return _batch(raw, views)

    def center(self, raw: RawBatch, image_size: int | None = None) -> Batch:
        """The center view.

        Args:
            raw: From the predict loader or one of a probe set.
            image_size: Side in pixels; None for that of the preprocessing.
        """
        raw = _readable(raw)
        if isinstance(raw.images, list):  # cropped by the worker
            view = raw.images[0].float() / 255
        else:
            view = center_view(raw.images, image_size or self.preprocessing.image_size, self.center_fraction)
        return _batch(raw, [self.preprocessing.normalize_(view)])


def _readable(raw: RawBatch) -> RawBatch:
    if bool(raw.valid.all()):
        return raw
    rows = raw.valid.nonzero().flatten()

    def select(tensor: Tensor) -> Tensor:
        return tensor.index_select(0, rows.to(tensor.device))

    images = [select(crops) for crops in raw.images] if isinstance(raw.images, list) else select(raw.images)
    return RawBatch(select(raw.index), images, select(raw.label), select(raw.valid), select(raw.occurrence))


def _batch(raw: RawBatch, views: list[Float[Tensor, "B 3 _h _w"]]) -> Batch:
    device = views[0].device
    return Batch(raw.index.to(device, non_blocking=True), views, raw.label.to(device, non_blocking=True))
