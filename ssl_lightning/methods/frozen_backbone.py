"""FrozenBackbone: any network of timm or torchvision as it is, to be evaluated and to cluster with, never trained."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssl_lightning.checkpoints.read import UNREADABLE, CorruptCheckpointError, reject_bombs
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.files import sha256_of
from ssl_lightning.methods.method import RGB, Method
from ssl_lightning.models.backbones import TimmBackbone, TorchvisionBackbone

PUBLISHED = "published"
_CLASSIFIERS = ("fc.", "head.", "heads.", "classifier.")
"""How the keys of classifiers begin, which have no place here."""
State = dict[str, Tensor]


class FrozenBackbone(Method):
    """A network that others have trained, or nobody, evaluated and used by the same code as every method.

    `ssl-lightning validate --model FrozenBackbone --model.name timm:resnet18 --model.weights resnet18.safetensors` and
    `predict` need no checkpoint of this package; it cannot be trained. Give the data the mean and standard deviation
    that the weights were trained with (`--data.mean`, `--data.std`).

    Args:
        name: `timm:<name>` or `torchvision:<name>`; a bare name is timm's where timm has it, else torchvision's.
        weights: A `.safetensors`, `.pth` or `.pt` file of a state dict with the library's own keys; "published" for
            what the library downloads or has in its cache; None for random ones, drawn from the run's seed.
        image_size: Side of the images, in pixels.
        mean: Mean of the images' channels as fractions 0..1.
        std: Their standard deviation.

    Raises:
        ValueError: For a name that neither library has.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        image_size: int = 32,
        mean: RGB = (0.5, 0.5, 0.5),
        std: RGB = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(_describe(name), None, None, image_size, mean, std)
        self.requires_grad_(False)
        self.name, self.weights = name, weights
        self._is_loaded = False
        self.register_load_state_dict_post_hook(_note_restored)

    def setup(self, stage: str) -> None:
        """Load the weights, once, and note where they come from.

        Raises:
            ValueError: For weights that cannot be had, or are not this network's.
        """
        super().setup(stage)
        if self._is_loaded:
            return
        path = None if self.weights in (None, PUBLISHED) else Path(self.weights)
        if self.weights is not None:
            state = _published(self.name) if path is None else _read(path)
            _load(self.backbone.body, state, f"--model.weights {self.weights}", self.name)
        said = f"{self.name} {self.weights}".encode()
        self.fingerprint = hashlib.sha256(said).hexdigest() if path is None else sha256_of(path)
        self._is_loaded = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """A frozen network has nothing to learn.

        Raises:
            UsageError: Always.
        """
        raise UsageError("FrozenBackbone has nothing to train; use `ssl-lightning validate` or `predict`")


def _note_restored(module: torch.nn.Module, _: Any) -> None:
    """Weights of a checkpoint are the weights: what its description calls them is neither read nor downloaded again."""
    cast(FrozenBackbone, module)._is_loaded = True


def _describe(name: str) -> TimmBackbone | TorchvisionBackbone:
    """Whose network this is, by prefix or, for a bare name, by who has it."""
    library, _, rest = name.rpartition(":")
    if library not in ("", "timm", "torchvision"):
        raise UsageError(f"found name={name!r}; expected timm:<name>, torchvision:<name> or a bare name")
    is_timm = timm.is_model(rest) if library == "" else library == "timm"
    return TimmBackbone(rest) if is_timm else TorchvisionBackbone(rest)


def _read(path: Path) -> State:
    if path.suffix not in (".safetensors", ".pth", ".pt") or not path.is_file():
        raise DataError(
            f"found no weights at {path}; expected a .safetensors, .pth or .pt file: give --model.weights one, or "
            f"{PUBLISHED!r}"
        )
    try:
        reject_bombs(path)
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, *UNREADABLE) as error:
        reason = " ".join(str(error).split())[:100]
        raise CorruptCheckpointError(
            f"found {path}, which does not read as tensors alone ({reason}); give a state dict"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"found {path}, which holds more than the tensors of a network; give its state dict alone")
    return dict(state)


def _published(name: str) -> State:
    """What the library itself downloads, or has in its cache."""
    backbone = _describe(name)
    try:
        if isinstance(backbone, TimmBackbone):
            return timm.create_model(backbone.name, pretrained=True, num_classes=0).state_dict()
        best = torchvision.models.get_model_weights(backbone.name)["DEFAULT"]
        return dict(best.get_state_dict(progress=False, check_hash=True))
    except Exception as error:  # of the network, the cache or the library, each in its own class
        reason = " ".join(str(error).split())[:100]
        raise UsageError(
            f"found no published weights of {name} ({type(error).__name__}: {reason}); expected a network connection "
            "or a filled cache: give --model.weights a .safetensors or .pth file of them"
        ) from error


def _load(body: torch.nn.Module, state: State, source: str, name: str) -> None:
    """Fill a network with a state dict, less a classifier that it does not have."""
    own = body.state_dict()
    wrong = {
        # networks saved before PyTorch 0.4.1 have no such counts, and in eval mode nothing reads them
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
