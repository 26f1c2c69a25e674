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
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.models.sobel import Sobel

__all__ = [
    "DEFAULT_PREPROCESSING",
    "VGG16",
    "AlexNet",
    "Backbone",
    "ClusterHead",
    "EmaTeacher",
    "Experts",
    "Preprocessing",
    "Projector",
    "Prototypes",
    "ResNet18",
    "Sobel",
    "TimmBackbone",
    "TorchvisionBackbone",
]
