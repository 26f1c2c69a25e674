"""Callbacks: clustering, evaluation, metrics, diagnostics and the report of a run."""

from ssl_lightning.callbacks.compile import Compile
from ssl_lightning.callbacks.diagnostic_signals import DiagnosticSignals
from ssl_lightning.callbacks.doctor import Doctor
from ssl_lightning.callbacks.neighbor_purity import NeighborPurity
from ssl_lightning.callbacks.operations import Operations
from ssl_lightning.callbacks.probe_features import ProbeFeatures
from ssl_lightning.callbacks.recluster import Recluster
from ssl_lightning.callbacks.sync_batchnorm import SyncBatchNorm
from ssl_lightning.callbacks.throughput import ImagesProgressBar, Throughput
from ssl_lightning.callbacks.write_clusters import WriteClusters
from ssl_lightning.callbacks.write_report import WriteReport

__all__ = [
    "Compile",
    "DiagnosticSignals",
    "Doctor",
    "ImagesProgressBar",
    "NeighborPurity",
    "Operations",
    "ProbeFeatures",
    "Recluster",
    "SyncBatchNorm",
    "Throughput",
    "WriteClusters",
    "WriteReport",
]
