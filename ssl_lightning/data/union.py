"""UnionImages: the concatenation of several sources."""

from dataclasses import MISSING, dataclass, fields
from itertools import count

from ssl_lightning.data.dataset import ConcatImages, ImageDataset
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.errors import UsageError

_UNUSED = frozenset(
    (
        *("views", "batch_size", "image_size", "mean", "std", "seed", "num_workers", "drop_last", "balance", "order"),
        *("blocks", "reference_images", "center_fraction", "max_unreadable", "eval_batch_size"),
    )
)
"""Options of a source that only the union itself has."""


@dataclass(kw_only=True, eq=False)
class UnionImages(ImageModule):
    """The training images of several sources, concatenated.

    Args:
        sources: The sources. Their images, subsets and probe sets are used; batches, views and all else are set here,
            and rejected in a source.
    """

    sources: list[ImageModule]

    def __post_init__(self) -> None:
        super().__post_init__()
        for place, source in enumerate(self.sources):
            _reject_unused(f"data.sources[{place}]", source)

    def open_training(self) -> ImageDataset:
        """The rows of the sources in order; sample ids of later sources are shifted above those of earlier ones.

        Raises:
            UsageError: If there is no source.
        """
        if not self.sources:
            raise UsageError("found data.sources=[]; expected at least one source")
        return ConcatImages([source.training for source in self.sources])

    def default_probe_sets(self) -> Probes:
        """The probe sets of all sources, those of the first source first; another set of the same name has a number."""
        probes: Probes = {}
        for source in self.sources:
            for name, pair in source.probes.items():
                if not any(_is_same(pair, other) for other in probes.values()):
                    numbers = (f"{name}-{number}" for number in count(2))
                    probes[name if name not in probes else next(new for new in numbers if new not in probes)] = pair
        return probes

    @property
    def evaluated_as(self) -> list[str]:
        """The names of all sources."""
        return [name for source in self.sources for name in source.evaluated_as]


def _reject_unused(place: str, source: ImageModule) -> None:
    """Reject an option of a source that the union does not use."""
    for option in fields(source):
        if option.name not in _UNUSED:
            continue
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if (value := getattr(source, option.name)) != default:
            raise UsageError(
                f"found {place}.{option.name}={value}, which a union does not use; expected data.{option.name}, for "
                "the images of all sources"
            )


def _is_same(pair: tuple[ImageDataset, ImageDataset], other: tuple[ImageDataset, ImageDataset]) -> bool:
    return [split.fingerprint for split in pair] == [split.fingerprint for split in other]
