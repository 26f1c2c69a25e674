"""Features and thumbnails of test images are kept before and after training, the same images each time."""

from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_lightning.callbacks import ProbeFeatures, SampleFeatures
from ssl_lightning.callbacks.probe_features import EvaluatedSplits
from ssl_lightning.callbacks.sample_features import sample_of, sampled_rows
from ssl_lightning.contracts import ImageTable
from ssl_lightning.data import Digits
from ssl_lightning.evaluation import KNN, nearest_between
from ssl_lightning.methods import RawPixels
from ssl_lightning.models import Preprocessing
from ssl_lightning.report.feature_sample import FILES, IMAGES, MOST, read_sample
from ssl_lightning.types import RawBatch

METHOD = RawPixels(preprocessing=Preprocessing(8))


def evaluated(folder):
    """Raw pixels of digits, evaluated once by a probe with the sample as its listener."""
    sample, probes = SampleFeatures(str(folder)), ProbeFeatures([KNN()])
    probes.listeners.append(sample.keep)
    data = Digits(image_size=8, batch_size=32, eval_batch_size=100)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[probes, sample],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(METHOD, datamodule=data, verbose=False)
    assert trainer.callback_metrics["eval/test_images"] == len(data.probes["digits"][1])
    return data


def test_the_sample_is_that_of_the_evaluated_features(tmp_path):
    data = evaluated(tmp_path)
    training, test = data.probes["digits"]
    found = read_sample(tmp_path / FILES["start"])
    assert found.rows.tolist() == list(range(len(test)))
    assert torch.equal(found.labels, test.labels)
    assert found.paths == test.names
    pixels, own = (METHOD.embed(data.center(batch(split)).views[0]) for split in (test, training))
    similarity = torch.nn.functional.normalize(found.features) @ torch.nn.functional.normalize(found.features).T
    assert torch.equal(found.neighbors[:, 0], similarity.fill_diagonal_(-1).argmax(1))
    expected = nearest_between(pixels[found.queries], own, 8)
    assert (found.nearest == expected).float().mean() > 0.95  # but for equal similarities
    assert found.labels[found.queries].unique().numel() == 8
    assert (tmp_path / FILES["last"]).read_bytes() == (tmp_path / FILES["start"]).read_bytes()


def batch(dataset):
    rows = torch.arange(len(dataset))
    images, valid = dataset.read(rows)
    return RawBatch(rows, images, dataset.labels, valid)


def test_thumbnails_are_in_the_order_of_the_rows(tmp_path):
    test = evaluated(tmp_path).probes["digits"][1]
    images, _ = test.read(torch.arange(len(test)))
    with Image.open(tmp_path / IMAGES) as sheet:
        pixels = pil_to_tensor(sheet)[0].float()
    for row in (0, 7, 41, 358):
        top, left = 8 * (row // 40), 8 * (row % 40)
        difference = pixels[top : top + 8, left : left + 8] - images[row, 0].float()
        assert difference.abs().mean() < 8, row  # of JPEG


def test_the_rows_are_few_and_a_function_of_the_number_of_images():
    rows = sampled_rows(10_000)
    assert len(rows) == MOST
    assert torch.equal(rows, sampled_rows(10_000))
    assert torch.equal(rows, rows.sort().values.unique())
    assert sampled_rows(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2])
def test_few_images_are_a_sample(count):
    split = {"index": torch.arange(count), "label": torch.full((count,), -1), "features": torch.rand(count, 3)}

    names = list("ab")[:count]
    table = Mock(spec=ImageTable, labels=split["label"], classes=[], names=names)
    found = sample_of(EvaluatedSplits(0, "a", split, split, table))
    assert found.neighbors.shape == (count, count - 1)
    assert found.nearest[0, 0] == 0


def test_a_folder_that_cannot_be_written_costs_no_evaluation(tmp_path, caplog):
    (tmp_path / "file").touch()
    evaluated(tmp_path / "file" / "report")
    assert "could not write" in caplog.text
