"""Tables of images: each requested row returns the image of that row."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_lightning.data.dataset import ConcatImages, InMemoryImages, PackedNames


def numbered(count, start=0, size=(2, 3), classes=("a", "b")):
    """Images with every pixel equal to their number."""
    images = (torch.arange(start, start + count) % 256).to(torch.uint8)[:, None, None, None].expand(count, 3, *size)
    return InMemoryImages(images.contiguous(), torch.arange(count) % len(classes), list(classes), title="image")


@given(st.lists(st.integers(0, 49)))
def test_rows_come_in_the_order_requested_and_as_often(rows):
    images, valid = numbered(50).read(torch.tensor(rows, dtype=torch.int64))
    assert images[:, 0, 0, 0].tolist() == rows
    assert valid.all()


@given(st.permutations(range(20)), st.lists(st.integers(0, 9), min_size=1))
def test_a_selection_numbers_rows_anew(chosen, rows):
    dataset = numbered(20)
    selection = dataset.select(torch.tensor(chosen[:10]))
    images, _ = selection.read(torch.tensor(rows))
    assert images[:, 0, 0, 0].tolist() == [chosen[row] for row in rows]
    assert selection.sample_ids.tolist() == chosen[:10]
    assert selection.labels.tolist() == [row % 2 for row in chosen[:10]]
    assert selection.name(0) == f"image {chosen[0]}"
    assert len(selection) == 10


@given(st.lists(st.integers(0, 11), min_size=1))
def test_joined_parts_are_read_across_their_borders(rows):
    joined = ConcatImages([numbered(4), numbered(5, 4), numbered(3, 9)])
    images, valid = joined.read(torch.tensor(rows))
    assert images[:, 0, 0, 0].tolist() == rows
    assert valid.all()
    assert [joined.name(row) for row in (3, 4, 9)] == ["image 3", "image 0", "image 0"]


def test_joined_parts_of_different_sizes_come_as_a_list():
    joined = ConcatImages([numbered(2), numbered(2, 2, size=(5, 4))])
    images, _ = joined.read(torch.tensor([3, 0, 2]))
    assert joined.size is None
    assert [tuple(image.shape) for image in images] == [(3, 5, 4), (3, 2, 3), (3, 5, 4)]
    assert [int(image[0, 0, 0]) for image in images] == [3, 0, 2]


def test_joined_sample_ids_are_unique_and_keep_their_order():
    first = numbered(3)
    first.sample_ids = torch.tensor([5, 90, 7])
    assert ConcatImages([first, numbered(2), numbered(2)]).sample_ids.tolist() == [5, 90, 7, 91, 92, 93, 94]


def test_equal_class_lists_stay_one_and_different_ones_follow_each_other():
    same = ConcatImages([numbered(2), numbered(2)])
    assert (same.classes, same.labels.tolist()) == (["a", "b"], [0, 1, 0, 1])
    unlabelled = InMemoryImages(torch.zeros(1, 3, 2, 3, dtype=torch.uint8))
    other = ConcatImages([numbered(2), unlabelled, numbered(2, classes=("c", "d"))])
    assert (other.classes, other.labels.tolist()) == (["a", "b", "c", "d"], [0, 1, -1, 2, 3])


def test_the_fingerprint_knows_images_and_order_but_not_the_object():
    dataset = numbered(6)
    assert dataset.fingerprint == numbered(6).fingerprint
    assert dataset.fingerprint != numbered(6, 1).fingerprint
    orders = [torch.arange(6), torch.arange(6).flip(0), torch.arange(5)]
    prints = {dataset.select(order).fingerprint for order in orders} | {dataset.fingerprint}
    assert len(prints) == 4
    assert ConcatImages([numbered(2), numbered(3)]).fingerprint != ConcatImages([numbered(3), numbered(2)]).fingerprint


def test_an_unreadable_row_is_reported():
    dataset = InMemoryImages(torch.zeros(3, 3, 2, 2, dtype=torch.uint8), unreadable={1: "truncated"}, title="scan")
    assert dataset.read(torch.tensor([1, 2]))[1].tolist() == [False, True]
    assert dataset.labels.tolist() == [-1, -1, -1]


@given(st.lists(st.text()))
def test_names_of_any_text_survive(names):
    assert list(pickle.loads(pickle.dumps(PackedNames(names)))) == names


@pytest.mark.parametrize("name", ["line\nbreak.jpg", "snow☃.png", "\udcff\udcfe.jpg", ""])
def test_odd_names_survive(name):
    assert list(PackedNames(["first", name, "last"])) == ["first", name, "last"]
