"""Backbones: sizes that are known from the literature, features of the promised width, clear rejections."""

import re
import subprocess
import sys

import pytest
import torch

from ssl_lightning.errors import UsageError
from ssl_lightning.models import (
    VGG16,
    AlexNet,
    ClusterHead,
    Projector,
    ResNet18,
    Sobel,
    TimmBackbone,
    TorchvisionBackbone,
)


def parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_resnet18_of_width_64_has_the_parameters_of_torchvisions_with_the_stem_replaced():
    ours, torchvisions = ResNet18().build(), TorchvisionBackbone("resnet18", "cifar").build()
    assert parameters(ours) == parameters(torchvisions) == 11_168_832
    assert parameters(ResNet18(stem="imagenet").build()) == parameters(TimmBackbone("resnet18").build())


def test_resnet18_computes_what_torchvisions_computes_with_the_same_weights():
    ours, other = ResNet18().build().eval(), TorchvisionBackbone("resnet18", "cifar").build().eval()
    weights = ours.state_dict()
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(ours(images), other(images), atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        (ResNet18(8), 32),
        (ResNet18(8, "imagenet"), 64),
        (TimmBackbone("resnet18", "cifar"), 32),
        (TimmBackbone("regnety_002"), 64),
        (TorchvisionBackbone("regnet_y_400mf"), 64),
        (TorchvisionBackbone("mobilenet_v3_small"), 64),
    ],
)
@pytest.mark.parametrize("in_channels", [2, 3])
def test_features_have_the_promised_width(backbone, size, in_channels):
    network = backbone.build(in_channels).eval()
    assert network(torch.randn(2, in_channels, size, size)).shape == (2, network.num_features)


def test_very_narrow_networks_train_on_odd_batches():
    """In channels-last layout this crashes some CPUs; hence in a process of its own."""
    assert ResNet18(8).build().layout == torch.contiguous_format
    assert ResNet18(16).build().layout == torch.channels_last
    code = (
        "import torch; from ssl_lightning.models import ResNet18; net = ResNet18(8).build()\n"
        "for _ in range(6): net(torch.randn(33, 3, 16, 16)).square().mean().backward()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_alexnet_is_the_papers_and_its_features_are_before_the_last_relu():
    network = AlexNet().build(2).eval()
    # conv 96-256-384-384-256 with biases, BN, and two layers of 4096
    convolutions = 2 * 121 * 96 + 96 * 25 * 256 + 256 * 9 * 384 + 384 * 9 * 384 + 384 * 9 * 256
    biases_and_norms = 3 * (96 + 256 + 384 + 384 + 256)
    assert parameters(network) == convolutions + biases_and_norms + 256 * 36 * 4096 + 4096 + 4096 * 4096 + 4096
    features = network(torch.randn(2, 2, 224, 224))
    assert features.shape == (2, 4096)
    assert (features < 0).any()
    assert not network.rectified


def layers(network):
    """Layers that compute, in order, each by its kind and sizes."""
    found = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.bias is not None
            found.append(("conv", module.out_channels, module.kernel_size[0], module.stride[0], module.padding[0]))
        elif isinstance(module, torch.nn.BatchNorm2d):
            found.append(("norm", module.num_features))
        elif isinstance(module, torch.nn.MaxPool2d):
            found.append(("pool", module.kernel_size, module.stride))
        elif isinstance(module, torch.nn.Linear):
            found.append(("linear", module.in_features, module.out_features))
        elif isinstance(module, torch.nn.Dropout):
            found.append(("dropout", module.p))
        elif isinstance(module, torch.nn.ReLU):
            found.append(("relu",))
    return found


def stage(width, kernel=3, stride=1, padding=1):
    return [("conv", width, kernel, stride, padding), ("norm", width), ("relu",)]


ORIGINAL_ALEXNET = [
    *stage(96, 11, 4, 2),
    ("pool", 3, 2),
    *stage(256, 5, 1, 2),
    ("pool", 3, 2),
    *stage(384),
    *stage(384),
    *stage(256),
    ("pool", 3, 2),
    ("dropout", 0.5),
    ("linear", 9216, 4096),
    ("relu",),
    ("dropout", 0.5),
    ("linear", 4096, 4096),
]
ORIGINAL_VGG16 = [
    *(
        layer
        for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
        for layer in [*(layer for _ in range(depth) for layer in stage(width)), ("pool", 2, 2)]
    ),
    ("linear", 25088, 4096),
    ("relu",),
    ("dropout", 0.5),
    ("linear", 4096, 4096),
]


@pytest.mark.parametrize(
    ("backbone", "original"), [(AlexNet(), ORIGINAL_ALEXNET), (VGG16(), ORIGINAL_VGG16)], ids=["alexnet", "vgg16"]
)
def test_layers_are_those_of_the_released_deepcluster(backbone, original):
    """In order, without the last ReLU, which the head applies, and without the pooling of other image sizes."""
    with torch.device("meta"):
        assert layers(backbone.build(2)) == original


@pytest.mark.slow
def test_vgg16_gives_4096_features_before_the_last_relu():
    network = VGG16().build(2).eval()
    features = network(torch.randn(2, 2, 64, 64))
    assert features.shape == (2, 4096)
    assert (features < 0).any()


@pytest.mark.parametrize(
    ("backbone", "close"),
    [
        (TimmBackbone("resnet_50"), "which timm does not have; expected a name such as resnet50,"),
        (TimmBackbone("resnt18"), "which timm does not have; expected a name such as resnet18,"),
        (TorchvisionBackbone("ResNet_50"), "which torchvision does not have; expected a name such as resnet50,"),
        (TimmBackbone("zzzzzz"), "which timm does not have; expected one of timm.list_models()"),
    ],
)
def test_an_unknown_name_comes_with_close_ones(backbone, close):
    with pytest.raises(UsageError, match=re.escape(close)):
        backbone.build()


def test_unknown_names_and_stems_are_rejected_in_one_line():
    for backbone in (TimmBackbone("resnet-18"), TorchvisionBackbone("nothing")):
        with pytest.raises(ValueError, match="does not have; expected "):
            backbone.build()
    with pytest.raises(ValueError, match='use stem="imagenet"'):
        TimmBackbone("vit_tiny_patch16_224", "cifar").build()
    with pytest.raises(ValueError, match="even number"):
        ResNet18(width=7)


def test_the_cifar_stem_of_a_regnet_keeps_the_images_size():
    stem = {name: TimmBackbone("regnety_002", name).build().body.stem for name in ("imagenet", "cifar")}
    shapes = {name: tuple(part(torch.zeros(1, 3, 32, 32)).shape[2:]) for name, part in stem.items()}
    assert shapes == {"imagenet": (16, 16), "cifar": (32, 32)}


@pytest.mark.parametrize("name", ["resnet50", "regnety_004"])
def test_residual_branches_begin_open_where_the_released_code_opens_them(name):
    def shut(backbone):
        """Normalizations with gains of zero: one a block."""
        modules = backbone.build().modules()
        return sum(bool((module.weight == 0).all()) for module in modules if isinstance(module, torch.nn.BatchNorm2d))

    assert shut(TimmBackbone(name)) == 16
    assert shut(TimmBackbone(name, zero_init_last=False)) == 0
    with pytest.raises(ValueError, match="zero_init_last=false with vit_tiny_patch16_224, which has no"):
        TimmBackbone("vit_tiny_patch16_224", zero_init_last=False).build()


def test_sobel_responds_to_edges_and_not_to_flat_color_and_has_no_parameters():
    stem = Sobel()
    flat = stem(torch.full((1, 3, 8, 8), 0.7))
    assert flat[:, :, 1:-1, 1:-1].abs().max() < 1e-6
    step = torch.zeros(1, 3, 8, 8)
    step[..., 4:] = 1
    horizontal, vertical = stem(step)[0, :, 4, 2:6]
    assert horizontal.tolist() == pytest.approx([0, -4, -4, 0])
    assert vertical.abs().max() == 0
    assert not list(stem.parameters())


def test_a_head_is_initialized_anew_from_its_seed_alone():
    head = ClusterHead(100, 50)
    weight = head.linear.weight
    state = torch.get_rng_state()
    head.reset(5)
    first = head.linear.weight.clone()
    head.reset(6)
    assert not torch.equal(first, head.linear.weight)
    head.reset(5)
    assert torch.equal(first, head.linear.weight)
    assert head.linear.weight is weight  # optimizers keep their parameter
    assert float(first.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not head.linear.bias.any()
    assert torch.equal(state, torch.get_rng_state())


def test_a_rectifying_head_opens_with_the_relu_that_was_cut_off():
    head = ClusterHead(4, 3, rectify=True)
    features = torch.randn(5, 4)
    assert torch.equal(head(features), head.linear(features.relu()))


@pytest.mark.parametrize(("hidden", "width"), [([-2], 8), ([16, 0], 8), ([16], 0)])
def test_a_projector_without_width_is_rejected(hidden, width):
    with pytest.raises(UsageError, match="expected widths of at least 1"):
        Projector(16, hidden, width)
