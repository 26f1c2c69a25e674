"""Commands in a notebook, images to begin with, and the weights of a backbone."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.inspect import command, example_images, features, load_run, save_backbone


def test_a_command_prints_its_line_and_the_end_of_its_output(simclr, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    command(f"status '{simclr.parent}'")
    line, *output = capsys.readouterr().out.splitlines()
    assert line == f"ssl-lightning status '{simclr.parent}'"
    assert any(each.startswith("simclr ") and "finished" in each for each in output)


def test_a_command_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    with pytest.raises(UsageError, match=r"found a command that failed: ssl-lightning: error: found no folder .*none"):
        command(f"status {tmp_path / 'none'}")


def test_example_images_are_digits_as_files(tmp_path):
    folder = example_images(tmp_path / "a" / "digits", count=5)
    files = sorted((tmp_path / "a" / "digits").iterdir())
    assert (folder, len(files)) == (str(tmp_path / "a" / "digits"), 5)
    expected = (load_digits().images[3] * 255 / 16).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(files[3])), expected)
    with pytest.raises(DataError, match="which cannot be written"):
        example_images(files[0])


def test_a_saved_backbone_gives_the_same_features(simclr, tmp_path):
    run = load_run(simclr)
    text = save_backbone(run, tmp_path / "backbone.pt")
    assert text.endswith("backbone.pt: ResNet, 0.18 M parameters, 64 features of images of 16 px")
    other = type(run.method.backbone.body)
    body = run.method.constructor_arguments["backbone"].build().body
    assert isinstance(body, other)
    body.load_state_dict(torch.load(tmp_path / "backbone.pt", weights_only=True))
    found = features(run, max_images=20)
    views = torch.cat([run.data.center(raw).views[0] for raw in run.data.predict_dataloader(found.rows)])
    with torch.no_grad():
        torch.testing.assert_close(body.eval()(views), found.values)
    with pytest.raises(DataError, match="which cannot be written; give another path"):
        save_backbone(run, tmp_path / "none" / "backbone.pt")
