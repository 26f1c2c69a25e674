"""SourceOptions: how the files of a source are chosen and decoded."""

from dataclasses import dataclass

from ssl_lightning.data.limits import DEFAULT_LIMITS, Limits
from ssl_lightning.data.selection import DEFAULT_SELECTION, Selection


@dataclass(frozen=True)
class SourceOptions:
    """How the files of a source are chosen and decoded.

    Attributes:
        limits: What decoding one image may cost.
        selection: Patterns of file names.
    """

    limits: Limits = DEFAULT_LIMITS
    selection: Selection = DEFAULT_SELECTION


DEFAULT_OPTIONS = SourceOptions()
