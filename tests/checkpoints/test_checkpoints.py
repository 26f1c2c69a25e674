"""Checkpoints are whole or absent, are verified, run no code, and give back the method that they hold."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from ssl_lightning import load_model
from ssl_lightning.checkpoints import CorruptCheckpointError, DurableCheckpointIO, newest_valid, read_checkpoint
from ssl_lightning.checkpoints.durable import point_last
from ssl_lightning.checkpoints.plain import to_plain
from ssl_lightning.clustering import Clustering
from ssl_lightning.errors import DataError
from ssl_lightning.files import write_atomically
from ssl_lightning.methods import DeepCluster, RawPixels
from ssl_lightning.models import Preprocessing, ResNet18, TimmBackbone


def saved(model, path, **changes):
    checkpoint = {"state_dict": model.state_dict(), "global_step": 3, "epoch": 1, **changes}
    model.on_save_checkpoint(checkpoint)
    checkpoint.update(changes)
    DurableCheckpointIO().save_checkpoint(checkpoint, path)
    return path


@pytest.fixture
def model():
    method = DeepCluster(7, backbone=ResNet18(4), sobel=True, preprocessing=Preprocessing(mean=(0.1, 0.2, 0.3)))
    labels = torch.tensor([0, 6, -1, 3])
    method.pseudo_labels.assign([Clustering(labels, torch.zeros(4), torch.zeros(7, 2), torch.zeros(7).long())])
    return method


def test_a_method_comes_back_from_its_file_alone_with_weights_memory_banks_and_normalization(model, tmp_path):
    loaded = load_model(saved(model, tmp_path / "step-3.ckpt"))
    assert type(loaded) is DeepCluster
    assert not loaded.training
    assert loaded.preprocessing == Preprocessing(mean=(0.1, 0.2, 0.3))
    assert loaded.pseudo_labels.rows.flatten().tolist() == [0, 6, -1, 3]
    model.eval()
    images = model.normalize(torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8))
    assert torch.equal(loaded.embed(images), model.embed(images))


@pytest.mark.parametrize(
    "other", [RawPixels(preprocessing=Preprocessing(16)), DeepCluster(3, backbone=TimmBackbone("resnet10t"))]
)
def test_every_method_and_backbone_describes_itself_in_plain_values(other, tmp_path):
    assert type(load_model(saved(other, tmp_path / "step-1.ckpt"))) is type(other)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "grow", "sidecar", "no sidecar"])
def test_damage_is_found_before_use_and_an_earlier_checkpoint_is_taken(model, tmp_path, damage):
    good, bad = saved(model, tmp_path / "step-3.ckpt"), saved(model, tmp_path / "step-10.ckpt")
    content = bytearray(bad.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 4
    bad.write_bytes({"truncate": content[:-100], "empty": b"", "grow": content + b"x"}.get(damage, content))
    if damage == "sidecar":
        bad.with_suffix(".json").write_text('{"sha256": 5}')
    if damage == "no sidecar":
        bad.with_suffix(".json").unlink()
    else:
        with pytest.raises(CorruptCheckpointError):
            read_checkpoint(bad)
    assert newest_valid(tmp_path) == good


def test_random_single_bit_flips_are_all_found(model, tmp_path):
    path = saved(model, tmp_path / "step-3.ckpt")
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for position in torch.randint(len(content), (100,), generator=generator).tolist():
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        with pytest.raises(CorruptCheckpointError):
            read_checkpoint(path)


class Evil:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    "content", [b"step-9.ckpt", b"Rx", b"<html></html>", b"\x80\x02", b"(e.", b"a.", b"0", b"\x85."]
)
def test_a_file_of_another_kind_is_rejected_in_one_line(content, tmp_path):
    path = tmp_path / "page.ckpt"
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match=r"page\.ckpt") as caught:
        read_checkpoint(path)
    for text in ("eights_only", "Weights only", "unpickl", "pop from", "\x1b", "torch.load"):
        assert text not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(90)])
def test_a_file_that_was_cut_is_reported_as_incomplete(content, tmp_path):
    (tmp_path / "cut.ckpt").write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match="empty, incomplete or damaged"):
        read_checkpoint(tmp_path / "cut.ckpt")


def test_a_whole_module_is_named_by_its_class(tmp_path):
    torch.save({"state_dict": nn.Linear(2, 2)}, tmp_path / "module.ckpt")
    with pytest.raises(CorruptCheckpointError, match=r"it holds an object of torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "module.ckpt")


@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "optimizer_states"])
def test_a_pickle_that_runs_code_is_rejected(model, tmp_path, place):
    marker = tmp_path / "ran"
    path = saved(model, tmp_path / "step-3.ckpt", **{place: {"x": Evil(marker)}})
    with pytest.raises(CorruptCheckpointError):
        load_model(path)
    path.write_bytes(pickle.dumps(Evil(marker)))
    path.with_suffix(".json").unlink()
    with pytest.raises(CorruptCheckpointError):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("nested", [False, True])
def test_a_foreign_module_named_by_a_checkpoint_is_not_imported(model, tmp_path, nested):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass\n")
    described = {"class_path": "ssl_lightning.methods.DeepCluster", "init_args": {}}
    if nested:
        described["init_args"]["backbone"] = {"class_path": "evil_module.Net"}
    else:
        described["class_path"] = "evil_module.Net"
    path = saved(model, tmp_path / "step-3.ckpt", hyper_parameters=described)
    code = f"from ssl_lightning import load_model; load_model({str(path)!r})"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "SSL_LIGHTNING_PLUGINS" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_addresses_and_missing_files_are_rejected_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="local file"):
        read_checkpoint("https://example.org/x.ckpt")
    with pytest.raises(ValueError, match="check --ckpt_path"):
        read_checkpoint(tmp_path / "nothing.ckpt")


def test_weights_that_do_not_fit_the_description_are_rejected(model, tmp_path):
    path = saved(model, tmp_path / "step-3.ckpt", state_dict={"backbone.body.conv1.weight": torch.zeros(1)})
    with pytest.raises(CorruptCheckpointError, match="do not fit"):
        load_model(path)


def test_a_failing_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_last_is_a_link_that_moves_at_once(tmp_path):
    for name in ("step-1.ckpt", "step-2.ckpt"):
        (tmp_path / name).write_text(name)
        point_last(tmp_path / name)
        assert (tmp_path / "last.ckpt").read_text() == name
    assert (tmp_path / "last.ckpt").is_symlink()


def test_objects_that_no_configuration_describes_are_not_plain():
    with pytest.raises(TypeError, match="plain values"):
        to_plain({"x": object()})
    assert to_plain((1, ResNet18(8))) == [
        1,
        {"class_path": "ssl_lightning.models.backbones.ResNet18", "init_args": {"width": 8, "stem": "cifar"}},
    ]


def packed(content, compression=zipfile.ZIP_STORED):
    """An archive as torch writes it, its entries packed again."""
    file = io.BytesIO()
    torch.save(content, file)
    again = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(again, "w", compression) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    return again.getvalue()


def overlapping():
    """An archive with a directory that names one entry many times."""
    content = packed({"state_dict": {"w": torch.zeros(1000)}})
    end = content.rindex(b"PK\x05\x06")
    start = content.index(b"PK\x01\x02")
    directory = content[start:end]
    number = directory.count(b"PK\x01\x02") * 50
    tail = bytearray(content[end:])
    tail[8:12] = number.to_bytes(2, "little") * 2
    tail[12:16] = (50 * len(directory)).to_bytes(4, "little")
    return content[:start] + 50 * directory + bytes(tail)


def legacy(content):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def doubled():
    """Lists that hold each other twice, thirty deep: a walk through them visits a billion."""
    inner = []
    for _ in range(30):
        inner = [inner, inner]
    return inner


def declared(numel):
    """A legacy file that declares its storage larger than it is."""
    content = legacy({"state_dict": {"w": torch.zeros(77)}})
    assert content.count(b"KM") >= 1  # the number of elements, as pickle writes a small one
    return content.replace(b"KM", b"\x8a\x08" + numel.to_bytes(8, "little"))


BOMBS = {
    "compressed": lambda: packed({"state_dict": {"w": torch.zeros(10**6)}}, zipfile.ZIP_DEFLATED),
    "overlapping": overlapping,
    "expanded": lambda: packed({"state_dict": {"w": torch.zeros(1).expand(1 << 20, 1 << 20)}}),
    "expanded within": lambda: packed({"state_dict": {}, "x": [{"y": (torch.zeros(1).expand(1 << 40),)}]}),
    "legacy of terabytes": lambda: declared(1 << 44),
    "legacy of more": lambda: declared(1 << 62),
    "deep": lambda: packed({"state_dict": {}, "hyper_parameters": {"a": json.loads("[" * 150 + "]" * 150)}}),
    "laughs": lambda: packed({"state_dict": {}, "hyper_parameters": {"a": doubled()}}),
    "laughs in the config": lambda: packed({"state_dict": {}, "config": {"a": doubled()}}),
    "cut": lambda: packed({"state_dict": {"w": torch.zeros(10)}})[:-30],
    "a directory of nothing": lambda: b"PK\x03\x04" + bytes(100) + b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_files_that_claim_more_than_they_hold_are_one_line(bomb, tmp_path):
    path = tmp_path / "bomb.ckpt"
    path.write_bytes(BOMBS[bomb]())
    with pytest.raises(DataError, match=r"bomb\.ckpt") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_met_again_and_again_is_walked_through_once(tmp_path):
    (tmp_path / "nested.ckpt").write_bytes(packed({"state_dict": {}, "more": doubled()}))
    assert read_checkpoint(tmp_path / "nested.ckpt")["state_dict"] == {}


def test_older_formats_give_their_weights(tmp_path):
    (tmp_path / "old.ckpt").write_bytes(legacy({"state_dict": {"w": torch.ones(3)}}))
    assert read_checkpoint(tmp_path / "old.ckpt")["state_dict"]["w"].tolist() == [1, 1, 1]


def test_a_sidecar_that_is_a_pipe_is_not_waited_for(model, tmp_path):
    path = saved(model, tmp_path / "step-3.ckpt")
    path.with_suffix(".json").unlink()
    os.mkfifo(path.with_suffix(".json"))
    assert newest_valid(tmp_path) is None
