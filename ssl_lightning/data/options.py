"""SourceOptions: how the files of a source are chosen and decoded."""

from dataclasses import dataclass

from ssl_lightning.data.intensity import IntensityWindow, check_window
from ssl_lightning.data.limits import DEFAULT_LIMITS, Limits
from ssl_lightning.data.sources.selection import DEFAULT_SELECTION, Selection


@dataclass(frozen=True)
class SourceOptions:
    """How the files of a source are chosen and decoded.

    Attributes:
        limits: What decoding one image may cost.
        selection: Patterns of file names.
        window: Gray values that become black and white.
        label: Column or sidecar that holds the labels; None for no labels, `ANY_LABEL` for the usual ones.
        metadata: Whether a manifest records the `.json` files beside the images.

    Raises:
        UsageError: For a window with its ends out of order.
    """

    limits: Limits = DEFAULT_LIMITS
    selection: Selection = DEFAULT_SELECTION
    window: IntensityWindow = None
    label: str | None = None
    metadata: bool = False

    def __post_init__(self) -> None:
        check_window(self.window)


DEFAULT_OPTIONS = SourceOptions()
