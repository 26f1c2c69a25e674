"""A user's own package, named in SSL_LIGHTNING_PLUGINS: a backbone that uses every global random state."""

import random
from dataclasses import dataclass

import numpy as np
from torch import nn

from ssl_lightning.models.backbones import Backbone, Network


class Jitter(nn.Module):
    """A random factor as in users' own code: from Python's and NumPy's global generators."""

    def forward(self, features):
        factor = random.gauss(0, 0.1) + 0.1 * np.random.rand()  # noqa: NPY002
        return features * (1 + factor) if self.training else features


@dataclass(frozen=True)
class DropoutNet(Backbone):
    """Two convolutions, dropout, batch normalization, a random factor."""

    width: int = 8

    def build(self, in_channels: int = 3) -> Network:
        w = self.width
        body = nn.Sequential(
            nn.Conv2d(in_channels, w, 3, stride=2, padding=1),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Dropout(0.3),
            Jitter(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * w),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        return Network(body, 2 * w)


@dataclass(frozen=True)
class PlainNet(Backbone):
    """Two convolutions; the features of an image depend on no other image."""

    width: int = 8

    def build(self, in_channels: int = 3) -> Network:
        w = self.width
        body = nn.Sequential(
            nn.Conv2d(in_channels, w, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        return Network(body, 8 * w)
