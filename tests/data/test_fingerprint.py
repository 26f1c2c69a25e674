"""Fingerprints of data: names, sizes and content, and those of files from before content was read."""

import hashlib
import os

import numpy as np
import pytest
import torch

from ssl_lightning.data.dataset import ConcatImages
from ssl_lightning.data.fingerprint import of_files
from ssl_lightning.data.loader import TrainingLoader
from ssl_lightning.data.packs import open_unlabelled
from ssl_lightning.data.reading import CropSpec
from ssl_lightning.runs.resume import DATA, DATA_BY_NAMES, differences

CHANGED = "data_fingerprint differs: the training images have other names, sizes or content"


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("container", ["folder", "tar", "shards", "tar.gz"])
def test_other_images_under_the_same_names_and_sizes_are_other_data(folder, tar, png, tmp_path, in_memory, container):
    last = (6, 6) if in_memory else (9, 6)

    def fingerprints(numbers, place):
        contents = {f"a/{row}.png": png(number) for row, number in enumerate(numbers)} | {"z.png": png(9, last)}
        length = max(map(len, contents.values()))
        contents = {name: data.ljust(length, b"\0") for name, data in contents.items()}
        if container == "folder":
            path = str(folder(contents, place))
        elif container == "shards":
            (tmp_path / place).mkdir()
            tar(list(contents.items())[:2], f"{place}/p-0.tar")
            tar(list(contents.items())[2:], f"{place}/p-1.tar")
            path = str(tmp_path / place / "p-*.tar")
        else:
            (tmp_path / place).mkdir()
            path = str(tar(contents.items(), f"{place}/x.{container}", "w:gz" if container == "tar.gz" else "w"))
        dataset = open_unlabelled(path)
        assert (dataset.size is not None) == in_memory
        return dataset.fingerprint, dataset.fingerprint_by_names

    first, moved, other = fingerprints([0, 1, 2], "x"), fingerprints([0, 1, 2], "y"), fingerprints([0, 7, 2], "z")
    assert first == moved
    assert first[0] != other[0]
    assert first[1] == other[1]
    assert first[0].startswith("v2:")


def test_images_replaced_in_place_are_read_again(folder, png):
    root = folder({"0.png": png(0), "1.png": png(1)})
    before = open_unlabelled(str(root))
    assert open_unlabelled(str(root)) is before
    time = (root / "1.png").stat().st_mtime_ns
    (root / "1.png").write_bytes(png(7).ljust(len(png(1)), b"\0"))
    os.utime(root / "1.png", ns=(time, time + 1))
    after = open_unlabelled(str(root))
    assert after.fingerprint != before.fingerprint
    assert not torch.equal(after.read(torch.tensor([1]))[0], before.read(torch.tensor([1]))[0])


def test_of_a_large_collection_the_ends_of_some_files_count():
    contents = [bytes([row % 256]) * 20_000 for row in range(1000)]
    sizes = np.array([len(content) for content in contents])

    def fingerprint(changed=None, place=0, **options):
        def read(row):
            if row != changed:
                return contents[row]
            return contents[row][:place] + bytes((contents[row][place] ^ 1,)) + contents[row][place + 1 :]

        return of_files("names", sizes, read, **options)

    whole, sampled = fingerprint(), fingerprint(read_whole=1_000_000)
    assert whole != sampled
    assert all(fingerprint(row, 10_000) != whole for row in (0, 1, 500, 999))
    assert all(fingerprint(row, place, read_whole=1_000_000) != sampled for row in (0, 999) for place in (0, 19_999))
    assert fingerprint(0, 10_000, read_whole=1_000_000) == sampled  # what it cannot notice
    assert sum(fingerprint(row, 0, read_whole=1_000_000) != sampled for row in range(1000)) == 256


def test_a_file_that_cannot_be_read_counts_as_such():
    def gone(row):
        raise FileNotFoundError

    assert of_files("names", np.array([3]), gone) == of_files("names", np.array([3]), gone)


def test_a_file_from_before_content_was_read_is_of_these_data_and_a_line_reports_so(folder, png, caplog):
    dataset = open_unlabelled(str(folder({f"{n}.png": png(n) for n in range(4)})))
    rows = torch.tensor([0, 2])
    everything = [dataset, dataset.select(rows), ConcatImages([dataset, dataset.select(rows)])]
    caplog.set_level("INFO")
    for data in everything:
        assert data.fingerprint.startswith("v2:")
        assert not data.fingerprint_by_names.startswith("v2:")
        assert data.fingerprint_as(data.fingerprint) == data.fingerprint
        assert data.fingerprint_as(None) == data.fingerprint_as("another") == data.fingerprint
        assert not caplog.records
        assert data.fingerprint_as(data.fingerprint_by_names) == data.fingerprint_by_names
        assert "content was not compared" in caplog.text
        caplog.clear()
    assert (
        dataset.select(rows).fingerprint_by_names
        == hashlib.sha256(
            b"".join(
                len(block).to_bytes(8, "little") + block
                for block in (dataset.fingerprint_by_names.encode(), rows.numpy().tobytes())
            )
        ).hexdigest()
    )  # as before


def test_a_loader_takes_up_an_older_state_with_a_line_and_no_state_of_other_images(folder, png, caplog):
    dataset = open_unlabelled(str(folder({f"{n}.png": png(n) for n in range(8)})))
    other = open_unlabelled(str(folder({f"{n}.png": png(n + 9) for n in range(8)}, "other")))
    loader = TrainingLoader(dataset, CropSpec([], 4), 4)
    state = loader.state_dict()
    caplog.set_level("INFO")
    loader.load_state_dict(state)
    assert not caplog.records
    with pytest.raises(ValueError, match=r"data\.fingerprint="):
        TrainingLoader(other, CropSpec([], 4), 4).load_state_dict(state)
    state["made_for"]["fingerprint"] = dataset.fingerprint_by_names
    loader.load_state_dict(state)
    assert caplog.text.count("content was not compared") == 1


def test_a_run_from_before_content_was_read_has_the_same_inputs():
    now = {DATA: "v2:content", DATA_BY_NAMES: "names", "seed": 1}
    assert differences({DATA: "names", "seed": 1}, now) == []
    assert differences(now, now) == []
    assert differences({DATA: "others", "seed": 1}, now) == [CHANGED]
    other = {DATA: "v2:other", DATA_BY_NAMES: "names", "seed": 1}
    assert differences(other, now) == [CHANGED]
