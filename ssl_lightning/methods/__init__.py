"""The methods, one file each."""

from ssl_lightning.methods.byol import BYOL
from ssl_lightning.methods.clusterfit import ClusterFit
from ssl_lightning.methods.deepcluster import DeepCluster
from ssl_lightning.methods.deepcluster_v2 import DeepClusterV2
from ssl_lightning.methods.distill import Distill
from ssl_lightning.methods.frozen_backbone import FrozenBackbone
from ssl_lightning.methods.instance_recognition import InstanceRecognition
from ssl_lightning.methods.local_aggregation import LocalAggregation
from ssl_lightning.methods.method import Method
from ssl_lightning.methods.moclr import MoCLR
from ssl_lightning.methods.raw_pixels import RawPixels
from ssl_lightning.methods.rotation_prediction import RotationPrediction
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.methods.soft_distillation import SoftDistillation
from ssl_lightning.methods.supervised import Supervised
from ssl_lightning.methods.swav import SwAV

__all__ = [
    "BYOL",
    "ClusterFit",
    "DeepCluster",
    "DeepClusterV2",
    "Distill",
    "FrozenBackbone",
    "InstanceRecognition",
    "LocalAggregation",
    "Method",
    "MoCLR",
    "RawPixels",
    "RotationPrediction",
    "SimCLR",
    "SoftDistillation",
    "Supervised",
    "SwAV",
]
