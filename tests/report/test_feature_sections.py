"""Samples of features: what a file holds, what a damaged one costs, and the sections that show them."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save

from ssl_lightning.report.feature_sample import FILES, IMAGES, FeatureSample, read_sample
from ssl_lightning.report.feature_sections import (
    MAPS,
    _within_one_folder,
    draw_neighbors_of_samples,
    map_section,
    neighbor_section,
    samples_of,
)
from ssl_lightning.report.thumbnails import one_image


class Images:
    """A table of gray images."""

    def __init__(self):
        self.classes = []

    def read(self, rows):
        return torch.zeros(len(rows), 3, 8, 8, dtype=torch.uint8), torch.ones(len(rows), dtype=torch.bool)


def sample(step: int = 0, count: int = 6, **options) -> FeatureSample:
    generator = torch.Generator().manual_seed(step)
    return replace(
        FeatureSample(
            step=step,
            probe_set="shapes",
            classes=["a", "b"],
            paths=[f"{row}.png\udcfe" for row in range(count)],
            rows=torch.arange(count),
            labels=torch.arange(count) % 2,
            features=torch.randn(count, 5, generator=generator),
            neighbors=torch.zeros(count, 2, dtype=torch.int64),
            queries=torch.arange(2),
            nearest=torch.ones(2, 3, dtype=torch.int64),
        ),
        **options,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / FILES["start"]).write_bytes(sample().encoded())
    (tmp_path / FILES["last"]).write_bytes(sample(30).encoded())
    one_image(torch.zeros(6, 3, 8, 8, dtype=torch.uint8)).save(tmp_path / IMAGES)
    return tmp_path


def test_a_file_holds_the_whole_sample(folder):
    found, expected = read_sample(folder / FILES["last"]), sample(30)
    for name in FeatureSample.TENSORS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("step", "probe_set", "classes", "paths"):
        assert getattr(found, name) == getattr(expected, name)


def damaged(texts=None, **tensors) -> bytes:
    """A sample with some other values."""
    whole = sample()
    known = {"step": "0", "probe_set": '"a"', "classes": "[]", "paths": json.dumps(whole.paths)} | (texts or {})
    return save({name: getattr(whole, name) for name in FeatureSample.TENSORS} | tensors, known)


DAMAGED = {
    "nothing": b"",
    "other tensors": save({"rows": torch.zeros(3)}),
    "a position out of range": damaged(neighbors=torch.full((6, 2), 6)),
    "a negative position": damaged(queries=torch.tensor([0, -1])),
    "labels of fewer images": damaged(labels=torch.zeros(5, dtype=torch.int64)),
    "a label below -1": damaged(labels=torch.full((6,), -2)),
    "features of whole numbers": damaged(features=torch.zeros(6, 5, dtype=torch.int64)),
    "features of three dimensions": damaged(features=torch.zeros(6, 5, 1)),
    "too many images": sample(count=1501).encoded(),
    "no images": damaged({"paths": "[]"}),
    "classes that are numbers": damaged({"classes": "[1, 2]"}),
    "a table of paths": damaged({"paths": "{}"}),
    "a step that is no number": damaged({"step": "x"}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_no_sample(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    assert read_sample(tmp_path / "file") is None


def test_an_undamaged_file_is_one(tmp_path):
    (tmp_path / "file").write_bytes(damaged())
    assert read_sample(tmp_path / "file") is not None


def test_a_missing_file_is_no_sample(tmp_path):
    assert read_sample(tmp_path / "file") is None
    assert read_sample(tmp_path) is None


def test_the_map_is_of_both_evaluations_and_names_the_probe_set(folder):
    section = map_section(folder, "untrained")
    assert section.title == "Map of the features of 6 test images of shapes"
    assert section.markup.count("<svg") == 2
    assert "<figcaption>untrained</figcaption>" in section.markup
    assert "<figcaption>step 30</figcaption>" in section.markup
    assert f'src="{IMAGES}"' in section.markup
    with Image.open(folder / MAPS) as image:
        assert image.width > 1.8 * image.height


def test_an_earlier_sample_of_other_images_is_left_out(folder):
    (folder / FILES["start"]).write_bytes(sample(paths=list("abcdef")).encoded())
    assert list(samples_of(folder)) == ["last"]
    assert map_section(folder, "untrained").markup.count("<svg") == 1


def test_before_training_there_is_one_map(folder):
    (folder / FILES["last"]).write_bytes(sample(0).encoded())
    assert "<figcaption>start</figcaption>" in map_section(folder, "start").markup


def test_few_images_undefined_features_and_missing_thumbnails_have_no_map(folder):
    (folder / FILES["last"]).write_bytes(sample(30, count=3).encoded())
    assert map_section(folder, "untrained") is None
    (folder / FILES["last"]).write_bytes(sample(30, features=torch.full((6, 5), torch.nan)).encoded())
    assert map_section(folder, "untrained") is None
    (folder / FILES["last"]).write_bytes(sample(30).encoded())
    (folder / IMAGES).write_bytes(b"no image")
    assert map_section(folder, "untrained") is None


def test_names_in_any_script_are_on_the_maps(folder):
    names = ["a$\\frac$ </script>", "b\udcfe \u732b"]
    for step, name in ((0, "start"), (30, "last")):
        (folder / FILES[name]).write_bytes(sample(step, classes=names).encoded())
    markup = map_section(folder, "untrained").markup
    assert markup.count("<svg") == 2
    assert "\u732b" in markup
    assert (folder / MAPS).is_file()


def test_collapsed_features_have_a_map(folder):
    (folder / FILES["last"]).write_bytes(sample(30, features=torch.ones(6, 5)).encoded())
    assert map_section(folder, "untrained").markup.count("<svg") == 2


def test_neighbors_of_both_evaluations_are_images_of_the_page(folder):
    assert neighbor_section(folder, "untrained") is None
    draw_neighbors_of_samples(folder, Images(), torch.tensor([0, 1]), Images())
    section = neighbor_section(folder, "untrained")
    assert [figure.caption for figure in section.figures] == ["untrained", "step 30"]
    for figure in section.figures:
        with Image.open(folder / figure.file) as image:
            assert image.format == "PNG"


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["/home/me/data/test/a/1.png", "/home/me/data/test/ab/1.png"], ["a/1.png", "ab/1.png"]),
        (["/x/1.png", "/x/2.png"], ["1.png", "2.png"]),
        (["/home/me/1.png"], ["1.png"]),
        (["digits/test 5", "/shapes/test 6"], ["digits/test 5", "/shapes/test 6"]),
    ],
)
def test_paths_begin_in_the_folder_that_all_images_have_in_common(paths, shown):
    assert _within_one_folder(paths) == shown
