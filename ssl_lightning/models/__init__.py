"""Networks without losses: backbones by name, and heads."""

from ssl_lightning.models.backbones import (
    VGG16,
    AlexNet,
    Backbone,
    ResNet18,
    TimmBackbone,
    TorchvisionBackbone,
)
from ssl_lightning.models.ema import EmaTeacher
from ssl_lightning.models.experts import Experts
from ssl_lightning.models.heads import ClusterHead, Projector, Prototypes
from ssl_lightning.models.layers import ENCODER_LAYERS, features_at
from ssl_lightning.models.sobel import Sobel

__all__ = [
    "ENCODER_LAYERS",
    "VGG16",
    "AlexNet",
    "Backbone",
    "ClusterHead",
    "EmaTeacher",
    "Experts",
    "Projector",
    "Prototypes",
    "ResNet18",
    "Sobel",
    "TimmBackbone",
    "TorchvisionBackbone",
    "features_at",
]
