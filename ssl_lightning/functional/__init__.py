"""Losses and codes: tensors in, tensors out, no state."""

from ssl_lightning.functional.pseudo_label import pseudo_label_loss

__all__ = ["pseudo_label_loss"]
