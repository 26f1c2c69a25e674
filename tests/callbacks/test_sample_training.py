"""A run that evaluates nothing has maps of its training images, from a pass that changes nothing of the run."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_lightning import load_model
from ssl_lightning.callbacks import SampleTrainingImages, sample_training
from ssl_lightning.checkpoints import read_checkpoint
from ssl_lightning.data import Digits, UncuratedImages
from ssl_lightning.entry import run as command
from ssl_lightning.report.feature_sample import FILES, IMAGES, TRAINING_IMAGES, read_sample
from ssl_lightning.types import RawBatch

SMALL = [
    *("--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8", "--model.hidden", "[16]"),
    *("--model.projection", "8", "--data.image_size", "8", "--data.batch_size", "16", "--trainer.accelerator", "cpu"),
    *("--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--data.num_workers", "0"),
]


@pytest.fixture
def images(tmp_path):
    """A folder of 40 digits, the last of them unreadable."""
    digits, _ = Digits().training.read(torch.arange(40))
    (tmp_path / "images").mkdir()
    for row, digit in enumerate(digits):
        Image.fromarray(digit.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{row:02}.png")
    (tmp_path / "images" / "39.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return str(tmp_path / "images")


@pytest.fixture
def fit(tmp_path, images, monkeypatch):
    """Trains SimCLR on the folder, and returns the folder of the run."""
    monkeypatch.setattr("sys.argv", ["ssl-lightning"])

    def started(name, *options):
        files = ["--config", "simclr", "--config", "data/folder", "--data.path", images]
        assert command(["fit", *files, *SMALL, *options, "--run.dir", str(tmp_path), "--run.name", name]) == 0
        return tmp_path / name

    return started


def test_the_sample_is_of_the_trained_networks_features_of_all_readable_images(fit, images):
    run = fit("a")
    start, last = (read_sample(run / "report" / FILES[kind]) for kind in ("start", "last"))
    assert (start.step, last.step, last.probe_set) == (0, 2, TRAINING_IMAGES)
    assert last.rows.tolist() == start.rows.tolist() == list(range(39))
    assert [path.rpartition("/")[2] for path in last.paths] == [f"{row:02}.png" for row in range(39)]
    method = load_model(run / "checkpoints" / "last.ckpt").eval()
    data = UncuratedImages(path=images, image_size=8, mean=method.preprocessing.mean, std=method.preprocessing.std)
    rows = torch.arange(39)
    pixels, valid = data.training.read(rows)
    with torch.no_grad():
        expected = method.embed(data.center(RawBatch(rows, pixels, torch.full((39,), -1), valid)).views[0])
    assert torch.allclose(last.features, expected, atol=1e-4)
    assert not torch.allclose(start.features, expected, atol=1e-2)
    unit = torch.nn.functional.normalize(last.features)
    assert torch.equal(last.neighbors[:, 0], (unit @ unit.T).fill_diagonal_(-1).argmax(1))
    assert torch.equal(last.nearest, last.rows[last.neighbors[last.queries]])


def test_the_page_has_the_maps_and_the_neighbors(fit):
    run = fit("a")
    page = (run / "report" / "index.html").read_text()
    assert "Map of the features of 39 training images" in page
    assert "Each dot is a training image" in page
    assert "test image" not in page
    assert "2 steps" in page
    for name in ("neighbors-start.png", "neighbors-last.png"):
        assert np.asarray(Image.open(run / "report" / name)).std() > 10
    with Image.open(run / "report" / IMAGES) as sheet:
        thumbnails = pil_to_tensor(sheet)[0].float()
    digits, _ = Digits().training.read(torch.arange(39))
    for row in (0, 17, 38):
        assert (thumbnails[:8, 8 * row : 8 * row + 8] - digits[row, 0]).abs().mean() < 10


def test_training_is_the_same_with_and_without_it(fit, monkeypatch):
    sampled = read_checkpoint(fit("a") / "checkpoints" / "last.ckpt")["state_dict"]
    monkeypatch.setattr(SampleTrainingImages, "_keep", lambda *_: None)
    alone = read_checkpoint(fit("b") / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(alone[name], value) for name, value in sampled.items() if isinstance(value, torch.Tensor))


def test_a_run_that_is_evaluated_has_the_sample_of_its_test_images_alone(fit):
    run = fit("a", "--data.probe_sets", "{digits: {train: digits/train, test: digits/test}}")
    assert read_sample(run / "report" / FILES["last"]).probe_set == "digits"


def test_a_failure_is_one_warning(fit, monkeypatch, caplog):
    def fail(*_):
        raise MemoryError("no memory")

    monkeypatch.setattr(sample_training, "_embedded", fail)
    run = fit("a")
    assert "could not sample features of training images for the report (no memory)" in caplog.text
    assert not (run / "report" / FILES["last"]).exists()
