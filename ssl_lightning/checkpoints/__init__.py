"""Checkpoints: durable writes, verified reads, and restoring a method from a file."""

from ssl_lightning.checkpoints.durable import DurableCheckpointIO
from ssl_lightning.checkpoints.load import load_model
from ssl_lightning.checkpoints.plain import to_plain
from ssl_lightning.checkpoints.read import CorruptCheckpointError, newest_valid, read_checkpoint

__all__ = [
    "CorruptCheckpointError",
    "DurableCheckpointIO",
    "load_model",
    "newest_valid",
    "read_checkpoint",
    "to_plain",
]
