"""When to do it: cluster, judge, count, show."""

from ssl_lightning.callbacks.compile import Compile
from ssl_lightning.callbacks.doctor import Doctor
from ssl_lightning.callbacks.gallery import Gallery
from ssl_lightning.callbacks.neighbour_purity import NeighbourPurity
from ssl_lightning.callbacks.operations import Operations
from ssl_lightning.callbacks.probe_features import ProbeFeatures
from ssl_lightning.callbacks.recluster import Recluster
from ssl_lightning.callbacks.sync_batchnorm import SyncBatchNorm
from ssl_lightning.callbacks.throughput import ImagesProgressBar, Throughput
from ssl_lightning.callbacks.vital_signs import VitalSigns
from ssl_lightning.callbacks.write_clusters import WriteClusters

__all__ = [
    "Compile",
    "Doctor",
    "Gallery",
    "ImagesProgressBar",
    "NeighbourPurity",
    "Operations",
    "ProbeFeatures",
    "Recluster",
    "SyncBatchNorm",
    "Throughput",
    "VitalSigns",
    "WriteClusters",
]
