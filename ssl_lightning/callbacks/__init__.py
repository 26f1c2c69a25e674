"""Callbacks: clustering, evaluation, metrics, diagnostics and the report of a run."""

from ssl_lightning.callbacks.compile import Compile
from ssl_lightning.callbacks.diagnostic_signals import DiagnosticSignals
from ssl_lightning.callbacks.doctor import Doctor
from ssl_lightning.callbacks.flops import CountFLOPs
from ssl_lightning.callbacks.neighbor_purity import NeighborPurity
from ssl_lightning.callbacks.probe_features import ProbeFeatures
from ssl_lightning.callbacks.progress import ImagesProgressBar, ProgressLines, TimeLeft
from ssl_lightning.callbacks.raw_pixels import RawPixelBaseline
from ssl_lightning.callbacks.recluster import Recluster
from ssl_lightning.callbacks.sample_features import SampleFeatures
from ssl_lightning.callbacks.sample_training import SampleTrainingImages
from ssl_lightning.callbacks.save_clusters import SaveClusters
from ssl_lightning.callbacks.sync_batchnorm import SyncBatchNorm
from ssl_lightning.callbacks.throughput import Throughput
from ssl_lightning.callbacks.write_clusters import WriteClusters
from ssl_lightning.callbacks.write_report import WriteReport

__all__ = [
    "Compile",
    "CountFLOPs",
    "DiagnosticSignals",
    "Doctor",
    "ImagesProgressBar",
    "NeighborPurity",
    "ProbeFeatures",
    "ProgressLines",
    "RawPixelBaseline",
    "Recluster",
    "SampleFeatures",
    "SampleTrainingImages",
    "SaveClusters",
    "SyncBatchNorm",
    "Throughput",
    "TimeLeft",
    "WriteClusters",
    "WriteReport",
]
