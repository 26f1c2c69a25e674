"""FrozenBackbone: the library's own features from any state dict, where they come from, and what is rejected."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from ssl_lightning.errors import UsageError
from ssl_lightning.files import sha256_of
from ssl_lightning.methods import FrozenBackbone
from ssl_lightning.models import TimmBackbone, TorchvisionBackbone

TIMM, TORCHVISION = "timm:test_resnet", "torchvision:mobilenet_v3_small"
IMAGES = torch.rand(2, 3, 32, 32)


class Attached(FrozenBackbone):
    """A frozen backbone with a trainer of plain values."""

    trainer = SimpleNamespace(precision="32-true", strategy=None, datamodule=None)


def ready(*arguments):
    method = Attached(*arguments)
    method.setup("validate")
    return method.eval()


def written(state, path):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(1)
    return timm.create_model("test_resnet", pretrained=False, num_classes=10).eval()


@pytest.fixture(scope="module")
def mobilenet():
    torch.manual_seed(1)
    return torchvision.models.mobilenet_v3_small().eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", ".torch", ""])
def test_features_of_a_timm_file_are_those_that_its_classifier_takes(resnet, tmp_path, suffix):
    path = written(resnet.state_dict(), tmp_path / f"weights{suffix}")
    with torch.no_grad():
        expected = resnet.forward_head(resnet.forward_features(IMAGES), pre_logits=True)
        assert torch.allclose(ready(TIMM, path).embed(IMAGES), expected, atol=1e-5)


def test_only_the_last_layer_of_a_torchvision_classifier_is_left_out(mobilenet, tmp_path):
    path = written(mobilenet.state_dict(), tmp_path / "weights.pth")
    with torch.no_grad():
        pooled = mobilenet.avgpool(mobilenet.features(IMAGES)).flatten(1)
        expected = mobilenet.classifier[:-1](pooled)
        assert torch.allclose(ready(TORCHVISION, path).embed(IMAGES), expected, atol=1e-5)


def test_files_from_before_batches_were_counted_are_taken(mobilenet, tmp_path):
    old = {key: value for key, value in mobilenet.state_dict().items() if "num_batches_tracked" not in key}
    method = ready(TORCHVISION, written(old, tmp_path / "weights.pth"))
    assert torch.equal(method.backbone.body.features[0][1].running_mean, mobilenet.features[0][1].running_mean)


def test_a_bare_name_is_timms_where_timm_has_it():
    assert type(FrozenBackbone("test_resnet").backbone.body) is type(TimmBackbone("test_resnet").build().body)
    assert not timm.is_model("shufflenet_v2_x0_5")
    built = FrozenBackbone("shufflenet_v2_x0_5").backbone.body
    assert type(built) is type(TorchvisionBackbone("shufflenet_v2_x0_5").build().body)


def test_making_one_reads_no_file_and_learns_nothing():
    method = FrozenBackbone(TIMM, "nowhere.pth")
    assert not any(parameter.requires_grad for parameter in method.parameters())
    with pytest.raises(UsageError, match="nothing to train"):
        method.training_step(None, 0)
    with pytest.raises(ValueError, match="nothing to train: use validate or predict"):
        method.configure_optimizers()


def test_weights_are_read_once_whatever_stages_follow(resnet, tmp_path):
    path = tmp_path / "weights.pth"
    method = ready(TIMM, written(resnet.state_dict(), path))
    path.unlink()
    method.setup("predict")
    assert torch.equal(method.backbone.body.conv1[0].weight, resnet.conv1[0].weight)


def test_the_fingerprint_reports_where_the_weights_come_from(resnet, tmp_path):
    path = tmp_path / "weights.safetensors"
    assert ready(TIMM, written(resnet.state_dict(), path)).fingerprint == sha256_of(path)
    assert ready(TIMM).fingerprint == hashlib.sha256(f"{TIMM} None".encode()).hexdigest()


def test_published_weights_come_from_the_librarys_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    known = torchvision.models.mobilenet_v3_small()
    url = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.url
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    written(known.state_dict(), tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    method = ready(TORCHVISION, "published")
    assert torch.equal(method.backbone.body.features[0][0].weight, known.features[0][0].weight)
    assert method.fingerprint == hashlib.sha256(f"{TORCHVISION} published".encode()).hexdigest()


def test_published_weights_that_cannot_be_had_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ValueError, match=r"no published weights of torchvision.*--model\.weights") as rejection:
        ready(TORCHVISION, "published")
    assert "\n" not in str(rejection.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("conv1.0.weight"), r"found 1 keys missing in .* \(conv1\.0\.weight\)"),
        (lambda state: state.update({"neck.b": state["bn1.bias"], "neck.a": state["bn1.bias"]}), r"neck\.a, neck\.b"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), r"of another shape in .* \(bn1\.bias\)"),
        (lambda state: state.update({"epoch": 3}), "more than the tensors of a network"),
    ],
)
def test_a_state_dict_of_another_network_names_its_first_keys(resnet, tmp_path, change, words):
    state = dict(resnet.state_dict())
    change(state)
    with pytest.raises(ValueError, match=words):
        ready(TIMM, written(state, tmp_path / "weights.pth"))


@pytest.mark.parametrize("content", [b"", b"nonsense"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_no_state_dict_is_rejected(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not read as tensors alone"):
        ready(TIMM, str(path))


def test_safetensors_are_known_by_their_content(resnet, tmp_path):
    path = Path(written(resnet.state_dict(), tmp_path / "weights.safetensors")).rename(tmp_path / "weights.bin")
    ready(TIMM, str(path))


def test_a_pickled_network_is_not_run_and_torchs_advice_to_run_it_is_not_repeated(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not read as tensors alone") as caught:
        ready(TIMM, str(tmp_path / "weights.pth"))
    assert "an object of torch.nn.modules.linear.Linear" in str(caught.value)
    assert not {"weights_only", "Weights only", "\x1b"} & set(str(caught.value).split())


@pytest.mark.parametrize("weights", ["nowhere.pth", "weights.onnx", "publisht", "."])
def test_weights_that_are_not_there_name_the_flag(weights):
    with pytest.raises(ValueError, match=r"--model\.weights"):
        ready(TIMM, weights)


@pytest.mark.parametrize("name", ["hub:resnet18", "timm:no_such_net", "torchvision:no_such_net", "no_such_net"])
def test_names_that_nobody_has_are_rejected(name):
    with pytest.raises(ValueError, match="expected"):
        FrozenBackbone(name)


@pytest.mark.parametrize(
    "content", [b"", b"a.", b"(e.", b"\x85.", b"Rx", b"<html></html>", b"PK\x03\x04" + bytes(90), b"\x80\x02]."]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_one_line(content, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"found .*weights\.") as caught:
        ready(TIMM, str(path))
    assert "\n" not in str(caught.value)
