"""Image sizes that networks take: found without computation, and rejected in one line before a run starts."""

import pytest
import torch

from ssl_lightning.data import Digits
from ssl_lightning.data.views import View
from ssl_lightning.errors import UsageError
from ssl_lightning.methods import DeepCluster, FrozenBackbone, RawPixels, SwAV
from ssl_lightning.methods.checks import reject_sizes
from ssl_lightning.models import ResNet18, TimmBackbone, TorchvisionBackbone
from ssl_lightning.models.image_sizes import size_taken, takes

VIT = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("backbone", "taken", "rejected"),
    [
        (ResNet18(8), [1, 32, 224], []),
        (TimmBackbone("regnety_002"), [32, 96, 224], []),
        (TimmBackbone(VIT), [224], [32, 96, 256]),
        (TimmBackbone(VIT, img_size=32), [32], [224]),
        (TimmBackbone(VIT, img_size=32, dynamic_img_size=True), [32, 96, 224], [40]),
        (TimmBackbone("swin_tiny_patch4_window7_224"), [224], [32]),
        (TorchvisionBackbone("vit_b_16"), [224], [32]),
        (TimmBackbone("inception_v3"), [96, 299], [32]),
    ],
    ids=str,
)
def test_the_sizes_that_a_network_takes_are_those_of_a_forward_pass(backbone, taken, rejected):
    network = backbone.build()
    before, state = {n: b.clone() for n, b in network.named_buffers()}, torch.get_rng_state()
    assert [side for side in (*taken, *rejected) if takes(network, side)] == taken
    assert size_taken(network) in (224, *taken)  # the first usual one
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    assert network.training
    network.eval()
    for side in rejected:
        with torch.no_grad(), pytest.raises((AssertionError, RuntimeError, ValueError)):
            network(torch.zeros(1, 3, side, side))


def check(method, stage="fit", **options):
    data = Digits(batch_size=16, **options)
    reject_sizes(method.backbone, method.constructor_arguments, data, stage)


def line_of(*arguments, **options):
    with pytest.raises(UsageError) as caught:
        check(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_vit_of_another_size_is_named_with_its_options():
    line = line_of(SwAV(16, TimmBackbone(VIT), hidden=(8,), projection=8), image_size=32)
    assert line == (
        f"found images of 32 pixels for {VIT}; expected 224, which it takes: give --model.backbone.img_size 32 "
        "--model.backbone.dynamic_img_size true, or --data.image_size 224"
    )


def test_every_size_of_views_is_tried():
    views = [View(count=2), View(count=4, size=0.42857)]
    line = line_of(SwAV(16, TimmBackbone(VIT), hidden=(8,), projection=8), image_size=224, views=views)
    assert "found images of 96 pixels for" in line
    assert "--data.image_size 224 and views of that size alone" in line
    multi_crop = TimmBackbone(VIT, dynamic_img_size=True)
    check(SwAV(16, multi_crop, hidden=(8,), projection=8), image_size=224, views=views)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_and_prediction_are_checked_too(stage):
    line = line_of(FrozenBackbone(f"timm:{VIT}"), stage, image_size=32)
    assert f"found images of 32 pixels for timm:{VIT}; expected 224" in line
    assert "give --data.image_size 224" in line
    check(FrozenBackbone(f"timm:{VIT}"), stage, image_size=224)


def test_networks_of_any_size_pass():
    for method in (SwAV(16, ResNet18(8)), DeepCluster(4, ResNet18(8), sobel=True), RawPixels()):
        check(method, image_size=8)


def test_a_network_that_is_marked_for_compilation_is_not_compiled_for_the_check():
    compiled = []
    network = ResNet18(8).build()
    network.compile(backend=lambda graph, inputs: compiled.append(graph) or graph.forward)
    assert takes(network, 32)
    assert compiled == []


def test_a_vit_learns_from_multi_crop():
    method = SwAV(16, TimmBackbone(VIT, img_size=32, dynamic_img_size=True), hidden=(8,), projection=8)
    views = [torch.randn(2, 3, side, side) for side in (32, 32, 16)]
    embeddings = method.embed_views(views)
    assert [tuple(z.shape) for z in embeddings] == [(2, 8)] * 3


def test_options_of_a_size_are_rejected_where_a_network_has_none():
    with pytest.raises(UsageError, match="found img_size=32 with resnet18, which has no position embeddings of a size"):
        TimmBackbone("resnet18", img_size=32).build()
    with pytest.raises(UsageError, match="found dynamic_img_size=true with regnety_002"):
        TimmBackbone("regnety_002", dynamic_img_size=True).build()
