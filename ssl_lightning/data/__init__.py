"""DataModules for image sources, their views, and the labeled splits for evaluation."""

from ssl_lightning.data.balance import Balance
from ssl_lightning.data.curated import CuratedImages
from ssl_lightning.data.digits import Digits
from ssl_lightning.data.limits import Limits
from ssl_lightning.data.module import ImageModule
from ssl_lightning.data.order import Blocks
from ssl_lightning.data.probe_sets import ProbeSet
from ssl_lightning.data.subset import Subset
from ssl_lightning.data.synthetic import SyntheticImages
from ssl_lightning.data.uncurated import UncuratedImages
from ssl_lightning.data.union import UnionImages
from ssl_lightning.data.views import View

__all__ = [
    "Balance",
    "Blocks",
    "CuratedImages",
    "Digits",
    "ImageModule",
    "Limits",
    "ProbeSet",
    "Subset",
    "SyntheticImages",
    "UncuratedImages",
    "UnionImages",
    "View",
]
