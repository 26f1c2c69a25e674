"""FrozenBackbone: a network of timm or torchvision as it is, to evaluate and to cluster with."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssl_lightning.checkpoints.read import UNREADABLE, CorruptCheckpointError, reject_bombs, why_unreadable
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.files import sha256_of
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import TimmBackbone, TorchvisionBackbone
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing

log = logging.getLogger(__name__)
PUBLISHED = "published"
_CLASSIFIERS = ("fc.", "head.", "heads.", "classifier.")
"""Prefixes of the keys of classifiers, which are left out."""
State = dict[str, Tensor]


class FrozenBackbone(Method):
    """A published or untrained network, evaluated and used by the same code as every method.

    `ssl-lightning validate --model FrozenBackbone --model.name timm:resnet18 --model.weights resnet18.safetensors` and
    `predict` need no checkpoint of this package; it cannot be trained. Give the data the mean and standard deviation
    that the weights were trained with (`--data.mean`, `--data.std`).

    Args:
        name: `timm:<name>` or `torchvision:<name>`; a bare name is timm's where timm has it, else torchvision's.
        weights: A file of a state dict with the library's own keys, of PyTorch or safetensors, whatever the ending of
            its name; "published" for the weights that the library downloads or has in its cache; None for random ones
            from the run's seed.
        preprocessing: Image size and normalization of the images.

    Raises:
        UsageError: For a name that neither library has.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(_describe(name), None, None, preprocessing)
        self.requires_grad_(False)
        self.name, self.weights = name, weights
        self._is_loaded = False
        self.register_load_state_dict_post_hook(_note_restored)

    def setup(self, stage: str) -> None:
        """Load the weights once and set the fingerprint.

        Raises:
            UsageError: For weights that are not available, or not of this network.
        """
        super().setup(stage)
        if self._is_loaded:
            return
        path = None if self.weights in (None, PUBLISHED) else Path(self.weights)
        if self.weights is not None:
            state = _published(self.name) if path is None else _read(path)
            _load(self.backbone.body, state, f"--model.weights {self.weights}", self.name)
        described = f"{self.name} {self.weights}".encode()
        self.fingerprint = hashlib.sha256(described).hexdigest() if path is None else sha256_of(path)
        self._is_loaded = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """A frozen network has nothing to learn.

        Raises:
            UsageError: Always.
        """
        raise UsageError("FrozenBackbone has nothing to train; use `ssl-lightning validate` or `predict`")


def _note_restored(module: torch.nn.Module, _: Any) -> None:
    """Weights of a checkpoint replace those that its description names, which are neither read nor downloaded."""
    assert isinstance(module, FrozenBackbone)
    module._is_loaded = True


def _describe(name: str) -> TimmBackbone | TorchvisionBackbone:
    """The library by the prefix or, for a bare name, the first one that has the name."""
    library, _, rest = name.rpartition(":")
    if library not in ("", "timm", "torchvision"):
        raise UsageError(f"found name={name!r}; expected timm:<name>, torchvision:<name> or a bare name")
    is_timm = timm.is_model(rest) if library == "" else library == "timm"
    return TimmBackbone(rest) if is_timm else TorchvisionBackbone(rest)


def _read(path: Path) -> State:
    if not path.is_file():
        raise DataError(
            f"found {'a folder' if path.is_dir() else 'no file'} at {path}; expected the weights of a network, of "
            f"PyTorch or safetensors: give --model.weights a file, or {PUBLISHED!r}"
        )
    try:
        reject_bombs(path)
        state = load_file(path) if _is_safetensors(path) else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, *UNREADABLE) as error:
        reason = " ".join(str(error).split())[:100] if isinstance(error, SafetensorError) else why_unreadable(error)
        raise CorruptCheckpointError(
            f"found {path}, which does not read as tensors alone ({reason}); give a state dict"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"found {path}, which holds more than the tensors of a network; give its state dict alone")
    return dict(state)


def _is_safetensors(path: Path) -> bool:
    """By its first bytes, the length of a header in JSON; names do not matter."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _published(name: str) -> State:
    """The weights that the library downloads, or has in its cache."""
    backbone = _describe(name)
    log.info(f"published weights of {name}: from the cache, or downloaded")
    for library in ("huggingface_hub", "timm"):  # two lines for each of ten attempts without a network
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        if isinstance(backbone, TimmBackbone):
            return timm.create_model(backbone.name, pretrained=True, num_classes=0).state_dict()
        best = torchvision.models.get_model_weights(backbone.name)["DEFAULT"]
        return dict(best.get_state_dict(progress=False, check_hash=True))
    except Exception as error:  # the network, the cache and the library each raise classes of their own
        reason = " ".join(str(error).split())[:100]
        raise UsageError(
            f"found no published weights of {name} ({type(error).__name__}: {reason}); expected a network connection "
            "or a filled cache: give --model.weights a .safetensors or .pth file of them"
        ) from error


def _load(body: torch.nn.Module, state: State, source: str, name: str) -> None:
    """Load a state dict into a network, without the classifier."""
    own = body.state_dict()
    wrong = {
        # networks saved before PyTorch 0.4.1 have no such counts, which eval mode does not use
        "missing": [key for key in own.keys() - state.keys() if not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in state.keys() - own.keys() if not key.startswith(_CLASSIFIERS)],
        "of another shape": [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape],
    }
    for what, keys in wrong.items():
        if keys:
            first = ", ".join(sorted(keys)[:2])
            raise UsageError(
                f"found {len(keys)} keys {what} in {source} ({first}); expected the weights of {name} under the keys "
                "of its library: give another file or --model.name"
            )
    body.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
