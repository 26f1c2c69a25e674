"""Images that cannot be read: the same limit and the same message in every pass over every set."""

import io
import json

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssl_lightning.callbacks import ProbeFeatures, WriteClusters
from ssl_lightning.callbacks.embed import embed_images
from ssl_lightning.clustering import KMeans
from ssl_lightning.data import CuratedImages, Limits, UncuratedImages
from ssl_lightning.errors import DataError
from ssl_lightning.evaluation import KNN
from ssl_lightning.methods import RawPixels


def png(height, width=8, seed=0):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(root, broken, in_memory=False, splits=("train", "test")):
    """20 images for each of two classes of each split; `broken` maps a split to the bytes that replace some of them."""
    for split in splits:
        replaced = broken.get(split, [])
        for number in range(40):
            path = root / split / "ab"[number % 2] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = png(8 if in_memory else 8 + number % 3, seed=number)
            path.write_bytes(replaced[number] if number < len(replaced) else content)
    return str(root)


def trainer(*callbacks):
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", enable_checkpointing=False, callbacks=list(callbacks), **options)


def validate(data):
    run = trainer(ProbeFeatures([KNN(k=3)]))
    run.validate(RawPixels(False, data.preprocessing), data, verbose=False)
    return run


BROKEN = [b"", png(8)[:-40], png(8)[:-30], b"text"]
REASONS = r"\((2 truncated, 1 empty, 1 of no format that is read)\); first: .*00\.png, .*\. "


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_too_many_in_a_split_of_a_probe_set_stop_the_evaluation(split, in_memory, tmp_path, caplog):
    path = write(tmp_path / "images", {split: BROKEN}, in_memory)
    line = rf"4 of 40 images of the {split} split of probe set images cannot be read {REASONS}"
    with pytest.raises(DataError, match=line + r"Remove them, or raise data.max_unreadable=0.05"):
        validate(CuratedImages(path=path, image_size=8, num_workers=0))
    run = validate(CuratedImages(path=path, image_size=8, num_workers=0, max_unreadable=0.1))
    assert float(run.callback_metrics["eval/masked"]) == 4
    (warning,) = (record.getMessage() for record in caplog.records if "They are left out" in record.getMessage())
    assert warning.startswith(f"4 of 40 images of the {split} split")
    assert (
        "eval/masked" not in validate(CuratedImages(path=write(tmp_path / "whole", {}), image_size=8)).callback_metrics
    )


def test_images_in_memory_are_checked_at_set_up(tmp_path):
    path = write(tmp_path / "images", {"test": BROKEN}, in_memory=True)
    data = CuratedImages(path=path, image_size=8, batch_size=4)
    with pytest.raises(DataError, match="4 of 40 images of the test split"):
        data.setup("fit")
    data = CuratedImages(path=path, image_size=8, batch_size=4, max_unreadable=0.1)
    data.setup("fit")
    plain = [report.plain() for report in data.source_reports]
    assert json.loads(json.dumps(plain)) == plain
    assert [report["found"] for report in plain] == [40, 40]
    assert plain[0]["unreadable"] == {}
    assert {reason: group["count"] for reason, group in plain[1]["unreadable"].items()} == {
        "empty": 1,
        "truncated": 2,
        "of no format that is read": 1,
    }


def test_what_a_pass_finds_on_disk_is_reported_afterwards(tmp_path):
    path = write(tmp_path / "images", {"test": BROKEN})
    data = CuratedImages(path=path, image_size=8, num_workers=0, max_unreadable=0.1)
    validate(data)
    train, test = data.source_reports
    assert train.unreadable == {}
    assert {reason: len(names) for reason, names in test.unreadable.items()} == {
        "empty": 1,
        "truncated": 2,
        "of no format that is read": 1,
    }
    assert "40 images in" in test.line()
    assert "4 cannot be read: 2 truncated" in test.line()


def test_predict_and_embed_have_the_same_limit(tmp_path):
    path = write(tmp_path / "images", {"train": BROKEN}, splits=["train"])
    strict = UncuratedImages(path=path, image_size=8, num_workers=0)
    model = RawPixels(False, strict.preprocessing)
    line = f"4 of 40 training images cannot be read {REASONS}"
    with pytest.raises(DataError, match=line):
        trainer(WriteClusters(str(tmp_path / "no"), 3, KMeans())).predict(model, strict, return_predictions=False)
    assert not list(tmp_path.glob("no.*"))
    with pytest.raises(DataError, match=line):
        embed_images(model, strict, progress=False)
    rows, _ = embed_images(model, UncuratedImages(path=path, image_size=8, max_unreadable=0.1), progress=False)
    assert len(rows) == 36


def test_the_console_and_the_table_count_the_same_images(tmp_path, caplog):
    caplog.set_level("INFO", "ssl_lightning")
    path = write(tmp_path / "images", {"train": BROKEN}, splits=["train"])
    data = UncuratedImages(path=path, image_size=8, num_workers=0, max_unreadable=0.1)
    writer = WriteClusters(str(tmp_path / "clusters"), 3, KMeans())
    trainer(writer).predict(RawPixels(False, data.preprocessing), data, return_predictions=False)
    assert "36 images (4 of 40 cannot be read, cluster -1) in 3 of 3 clusters" in caplog.text
    table = pd.read_parquet(tmp_path / "clusters.parquet")
    assert (len(table), int((table["cluster"] >= 0).sum())) == (40, 36)


@pytest.mark.parametrize(
    ("limits", "size", "reason"),
    [
        (Limits(max_pixels=300), (20, 16), r"1 larger than 0.0003 megapixels \(data.limits.max_pixels\)"),
        (Limits(max_side=40), (8, 50), r"1 longer than 40 pixels \(data.limits.max_side\)"),
        (Limits(max_aspect=4.0), (8, 50), r"1 longer than 4 times the short side \(data.limits.max_aspect\)"),
        (
            Limits(max_pixels=500, max_memory=2_000),
            (20, 20),
            r"1 of more than 0.002 MB to decode \(data.limits.max_memory\)",
        ),
    ],
)
def test_the_limit_that_an_image_exceeds_is_named_with_its_option(limits, size, reason, tmp_path):
    path = write(tmp_path / "images", {"train": [png(*size)]}, splits=["train"])
    data = UncuratedImages(path=path, image_size=8, num_workers=0, limits=limits, max_unreadable=0.0)
    with pytest.raises(DataError, match=rf"1 of 40 training images .* \({reason}\); first: .*00\.png\."):
        embed_images(RawPixels(False, data.preprocessing), data, progress=False)
