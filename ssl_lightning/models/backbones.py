"""Backbones: networks of timm or torchvision by name, ResNet-18 by width, DeepCluster's AlexNet and VGG16.

A backbone in a configuration is a description, a frozen dataclass, and `build` makes a network with `num_features`.
Descriptions are plain values and are stored in every checkpoint.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, cast

import timm
import torch
import torchvision
from jaxtyping import Float
from timm.models.regnet import RegNet
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from ssl_lightning.errors import UsageError
from ssl_lightning.models.checkpointed import checkpoint_stages

Stem = Literal["imagenet", "cifar"]
NO_OPTION = {
    "zero_init_last": "such gains",
    "img_size": "position embeddings of a size",
    "dynamic_img_size": "position embeddings to interpolate",
}
"""What a network lacks that has no such option of timm."""


class Network(nn.Module):
    """A network from images to pooled features.

    Args:
        body: The layers.
        num_features: D.
        rectified: False if the last ReLU was removed (AlexNet, VGG16): the head applies it.
    """

    def __init__(self, body: nn.Module, num_features: int, rectified: bool = True) -> None:
        super().__init__()
        # channels last takes a fifth to a third less time on CPU and GPU
        self.layout = torch.channels_last if _survives_channels_last(body) else torch.contiguous_format
        self.body = body.to(memory_format=self.layout)
        self.num_features = num_features
        self.rectified = rectified

    def forward(self, images: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D"]:
        """Normalized images to features."""
        return self.body(images.contiguous(memory_format=self.layout))


class Backbone(ABC):
    """A description of a network, for YAML."""

    @abstractmethod
    def build(self, in_channels: int = 3) -> Network:
        """Build the network with random weights from the global generator."""


def _unknown_name(name: str, library: str, names: list[str]) -> UsageError:
    """The error for a network that a library does not have, with the names that are most like its name."""
    close = get_close_matches(name.lower(), names, n=3)
    listed = "torchvision.models.list_models()" if library == "torchvision" else "timm.list_models()"
    expected = f"a name such as {', '.join(close)}" if close else f"one of {listed}"
    return UsageError(f"found backbone name={name!r}, which {library} does not have; expected {expected}")


@dataclass(frozen=True)
class ResNet18(Backbone):
    """ResNet-18 of any width (He et al. 2016).

    Args:
        width: Channels of the first stage: 64 in the original network (11.2 M parameters), 16 for two CPU cores.
        stem: "cifar" is a 3x3 convolution with stride 1 and padding 1 and no pooling, for images of about 32 pixels.
            "imagenet" is the original 7x7 convolution with stride 2 and max-pooling.
    """

    width: int = 64
    stem: Stem = "cifar"

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise UsageError(f"found ResNet18 width={self.width}; expected an even number of at least 2")

    def build(self, in_channels: int = 3) -> Network:
        """See `Backbone.build`."""
        w = self.width
        # timm's stem has 64 channels unless it is a deep one, which is replaced below
        net = ResNet(
            BasicBlock,  # type: ignore[arg-type]  # timm annotates an instance instead of the class
            (2, 2, 2, 2),
            num_classes=0,
            in_chans=in_channels,
            stem_type="deep",
            stem_width=w // 2,
            channels=(w, 2 * w, 4 * w, 8 * w),
            zero_init_last=False,  # torchvision and all public CIFAR recipes of these methods
        )
        net.conv1 = _imagenet_stem(in_channels, w) if self.stem == "imagenet" else _cifar_stem(in_channels, w)
        if self.stem == "cifar":
            net.maxpool = nn.Identity()
        return Network(net, 8 * w)


@dataclass(frozen=True)
class TimmBackbone(Backbone):
    """Any network of timm by name, without pretrained weights and without its classifier.

    Args:
        name: For example `resnet50`, `regnety_160`, `vit_small_patch16_224`.
        stem: "cifar" replaces the first convolution and the max-pooling of a ResNet and gives the stem of a RegNet
            stride 1.
        activation_checkpointing: Keep only the inputs of blocks of a ResNet or RegNet and compute the rest twice: a
            third more time and a fraction of the memory, with equal results.
        img_size: Side in pixels that the position embeddings of a ViT are made for; null for that of the name.
        dynamic_img_size: Let a ViT take images of any size by interpolating its position embeddings, for multi-crop.
        zero_init_last: Initialize the last normalization gain of every residual block to zero, which is timm's default
            and that of the released code of SimCLR and BYOL. SwAV, VISSL's RegNets and torchvision initialize it to
            one.
    """

    name: str = "resnet50"
    stem: Stem = "imagenet"
    activation_checkpointing: bool = False
    zero_init_last: bool = True
    img_size: int | None = None
    dynamic_img_size: bool = False

    def build(self, in_channels: int = 3) -> Network:
        """See `Backbone.build`.

        Raises:
            UsageError: If timm has no network of this name, or it has no ResNet stem to replace, no such gains or no
                such options of its size.
        """
        if not timm.is_model(self.name):
            raise _unknown_name(self.name, "timm", timm.list_models())
        given: dict[str, Any] = {
            "zero_init_last": None if self.zero_init_last else False,
            "img_size": self.img_size,
            "dynamic_img_size": self.dynamic_img_size or None,
        }
        options = {name: value for name, value in given.items() if value is not None}
        try:
            net = timm.create_model(self.name, pretrained=False, num_classes=0, in_chans=in_channels, **options)
        except TypeError as error:
            unknown = next((name for name in options if f"'{name}'" in str(error)), None)
            if unknown is None:
                raise
            shown = str(options[unknown]).lower()
            raise UsageError(
                f"found {unknown}={shown} with {self.name}, which has no {NO_OPTION[unknown]}: leave it out"
            ) from error
        if self.stem == "cifar":
            _use_cifar_stem(net, self.name, in_channels)
        if self.activation_checkpointing:
            checkpoint_stages(net, self.name)
        return Network(net, int(net.num_features))  # type: ignore[arg-type]  # an int in all models of timm


@dataclass(frozen=True)
class TorchvisionBackbone(Backbone):
    """Any classifier of torchvision by name, without pretrained weights and without its last linear layer.

    Args:
        name: For example `resnet18`, `regnet_y_400mf`.
        stem: "cifar" replaces the first convolution and the max-pooling of a ResNet.
        activation_checkpointing: See `TimmBackbone`.
    """

    name: str = "resnet18"
    stem: Stem = "imagenet"
    activation_checkpointing: bool = False

    def build(self, in_channels: int = 3) -> Network:
        """See `Backbone.build`.

        Raises:
            UsageError: If torchvision has no network of this name, or it has no ResNet stem to replace.
        """
        if self.name not in (names := torchvision.models.list_models(module=torchvision.models)):
            raise _unknown_name(self.name, "torchvision", names)
        net = torchvision.models.get_model(self.name, weights=None)
        num_features = _cut_classifier(net)
        if in_channels != 3:
            _replace_first_convolution(net, in_channels)
        if self.stem == "cifar":
            _use_cifar_stem(net, self.name, in_channels)
        if self.activation_checkpointing:
            checkpoint_stages(net, self.name)
        return Network(net, num_features)


@dataclass(frozen=True)
class AlexNet(Backbone):
    """DeepCluster's AlexNet: batch instead of local response normalization, five convolutions, two wide layers.

    Caron et al. 2018, section 4. Features are the 4096 outputs of the last hidden layer before its ReLU. The network is
    made for 224 pixels; other sizes are pooled to the same 6x6 map.
    """

    def build(self, in_channels: int = 3) -> Network:
        """See `Backbone.build`."""
        convolutions = nn.Sequential(
            *_block(in_channels, 96, kernel=11, stride=4, padding=2),
            nn.MaxPool2d(3, stride=2),
            *_block(96, 256, kernel=5, stride=1, padding=2),
            nn.MaxPool2d(3, stride=2),
            *_block(256, 384, kernel=3, stride=1, padding=1),
            *_block(384, 384, kernel=3, stride=1, padding=1),
            *_block(384, 256, kernel=3, stride=1, padding=1),
            nn.MaxPool2d(3, stride=2),
            nn.AdaptiveAvgPool2d(6),
        )
        body = nn.Sequential(convolutions, nn.Flatten(), nn.Dropout(0.5), *_wide_layers(256 * 6 * 6))
        _initialize_as_deepcluster(body)
        return Network(body, 4096, rectified=False)


@dataclass(frozen=True)
class VGG16(Backbone):
    """DeepCluster's VGG16 with batch normalization; features as for `AlexNet`. The network is made for 224 pixels.

    Unlike its AlexNet, it has no dropout before the first wide layer.
    """

    def build(self, in_channels: int = 3) -> Network:
        """See `Backbone.build`."""
        convolutions = torchvision.models.vgg16_bn(weights=None, init_weights=False).features
        if in_channels != 3:
            _replace_first_convolution(convolutions, in_channels)
        body = nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *_wide_layers(512 * 7 * 7))
        _initialize_as_deepcluster(body)
        return Network(body, 4096, rectified=False)


def _survives_channels_last(body: nn.Module) -> bool:
    """Whether oneDNN can train this network in channels-last layout without writing out of bounds.

    With torch 2.14 on CPUs with AMX, the backward pass of a strided 1x1 convolution with 8 channels corrupts memory for
    odd batch sizes. Very narrow networks therefore keep torch's default layout.
    """
    convolutions = [module for module in body.modules() if isinstance(module, nn.Conv2d)]
    return not any(
        c.kernel_size == (1, 1) and c.stride != (1, 1) and c.in_channels // c.groups < 16 for c in convolutions
    )


def _block(in_channels: int, out_channels: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _wide_layers(num_inputs: int) -> list[nn.Module]:
    """Two layers of width 4096 with dropout between. The head applies the last ReLU."""
    return [nn.Linear(num_inputs, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(4096, 4096)]


def _initialize_as_deepcluster(net: nn.Module) -> None:
    """He-normal convolutions (fan-out), N(0, 0.01^2) linear layers, zero biases."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _cifar_stem(in_channels: int, width: int) -> nn.Conv2d:
    return _he_normal(nn.Conv2d(in_channels, width, 3, stride=1, padding=1, bias=False))


def _imagenet_stem(in_channels: int, width: int) -> nn.Conv2d:
    return _he_normal(nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False))


def _he_normal(convolution: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _use_cifar_stem(net: nn.Module, name: str, in_channels: int) -> None:
    if isinstance(net, RegNet):
        cast(nn.Conv2d, net.stem.conv).stride = (1, 1)  # the stem of a RegNet is a 3x3 convolution without pooling
        return
    old = getattr(net, "conv1", None)
    if not isinstance(old, nn.Conv2d) or not hasattr(net, "maxpool"):
        raise UsageError(
            f'found stem="cifar" for backbone {name!r}; expected a ResNet or a RegNet of timm: use stem="imagenet"'
        )
    net.conv1 = _cifar_stem(in_channels, old.out_channels)
    net.maxpool = nn.Identity()


def _cut_classifier(net: nn.Module) -> int:
    """Remove the last linear layer; return its number of input features."""
    name, last = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return last.in_features


def _replace_first_convolution(net: nn.Module, in_channels: int) -> None:
    name, old = next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]  # torch types it as a tuple of any length
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, _he_normal(new))
