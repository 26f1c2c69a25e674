"""Self-supervised learning by clustering and from uncurated images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_lightning.checkpoints.load import load_model

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:
    """Import `load_model` on first use, so that `ssl-lightning --help` does not import torch."""
    if name == "load_model":
        from ssl_lightning.checkpoints.load import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
