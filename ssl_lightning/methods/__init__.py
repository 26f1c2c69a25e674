"""One file a method."""

from ssl_lightning.methods.deepcluster import DeepCluster
from ssl_lightning.methods.method import Method
from ssl_lightning.methods.raw_pixels import RawPixels

__all__ = ["DeepCluster", "Method", "RawPixels"]
