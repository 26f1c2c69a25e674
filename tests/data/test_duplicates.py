"""Groups of duplicates: candidates by hash, thumbnails that confirm them, and which one of a group is kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ssl_lightning.data import duplicates
from ssl_lightning.data.duplicates import (
    components,
    differences,
    equal_pairs,
    feature_pairs,
    hash_pairs,
    kept_rows,
    mirrored,
    near_pairs,
)
from ssl_lightning.errors import UsageError


def as_set(pairs):
    return {tuple(sorted(pair)) for pair in pairs.tolist()}


def test_equal_values_are_paired_with_the_first_of_them():
    values = np.array([b"b" * 32, b"a" * 32, b"b" * 32, b"c" * 32, b"b" * 32], dtype="S32")
    assert as_set(equal_pairs(values)) == {(0, 2), (0, 4)}


@pytest.mark.parametrize("most", [0, 10**6])
@pytest.mark.parametrize("bits", [1, 4, 7])
def test_hashes_within_some_bits_are_all_found(bits, most, monkeypatch):
    monkeypatch.setattr(duplicates, "_COMPARED_DIRECTLY", most)
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 2**64, 40, dtype=np.uint64)
    near = [value ^ np.bitwise_or.reduce(np.uint64(1) << rng.choice(64, count, replace=False).astype(np.uint64))
            for value in hashes for count in (1, 3, 4, 5, 7, 8)]  # fmt: skip
    values = np.unique(np.concatenate([hashes, np.array(near, dtype=np.uint64)]))
    distance = np.bitwise_count(values[:, None] ^ values[None])
    expected = {(a, b) for a, b in np.argwhere(distance <= bits).tolist() if a < b}
    assert as_set(hash_pairs(values, bits)) == expected


def test_more_bits_than_the_index_finds_exactly_are_one_line():
    with pytest.raises(UsageError, match="found 8 bits between perceptual hashes; expected 0 to 7"):
        hash_pairs(np.zeros(1, np.uint64), 8)


def test_candidates_are_confirmed_by_their_thumbnails():
    hashes = np.array([5, 5, 5, 4, 3 << 40, 5, 0xFFFF], dtype=np.uint64)
    gray = np.array([10, 13, 200, 11, 10, 202, 10], dtype=np.uint8)
    read = []

    def thumbnails(rows):
        read.extend(rows.tolist())
        return np.repeat(gray[rows, None], 768, axis=1)

    pairs = as_set(near_pairs(hashes, thumbnails, bits=2))
    groups = components(7, np.array(sorted(pairs)))
    assert groups[0] == groups[1] == groups[3]
    assert groups[2] == groups[5] != groups[0]
    assert len(set(groups.tolist())) == 4  # rows 4 and 6 are alone
    assert sorted(read) == [0, 1, 2, 3, 5]  # the hashes of the others are three bits and more from those


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_groups_are_those_of_all_pairs_where_thumbnails_are_apart(seed, count):
    """Thumbnails are of a few gray levels, far from each other, so that the order of comparisons plays no part."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 8, count).astype(np.uint64)
    gray = (rng.integers(0, 4, count) * 60 + rng.integers(0, 2, count)).astype(np.uint8)
    found = near_pairs(hashes, lambda rows: np.repeat(gray[rows, None], 12, axis=1), bits=1, difference=3.0)
    close = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= 1
    alike = abs(gray[:, None].astype(int) - gray[None].astype(int)) <= 3
    expected, groups = (components(count, pairs) for pairs in (np.argwhere(close & alike), found))
    assert len(np.unique(np.stack([expected, groups]), axis=1).T) == len(np.unique(expected)) == len(np.unique(groups))


def test_thousands_of_blank_images_are_compared_with_one(monkeypatch):
    compared = []

    def counted(one, other):
        compared.append(len(one) * len(other))
        return differences(one, other)

    monkeypatch.setattr(duplicates, "differences", counted)
    pairs = near_pairs(np.zeros(3000, np.uint64), lambda rows: np.full((len(rows), 12), 7, np.uint8))
    assert len(pairs) == sum(compared) == 2999


def test_the_difference_is_that_of_gray_levels():
    one, other = (np.random.default_rng(seed).integers(0, 256, (5, 768)).astype(np.uint8) for seed in (0, 1))
    expected = np.sqrt(((one[:, None].astype(float) - other[None]) ** 2).mean(2))
    assert np.allclose(differences(one, other), expected, rtol=1e-4)


def test_rows_with_similar_features_are_paired():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 8)).astype(np.float32)
    features = np.concatenate([features, features[:10] + rng.normal(size=(10, 8)).astype(np.float32) * 0.02])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosine = features @ features.T
    expected = {(a, b) for a, b in np.argwhere(cosine >= 0.95).tolist() if a < b}
    assert as_set(feature_pairs(features, 0.95)) == expected
    assert {(row, 50 + row) for row in range(10)} <= expected
    with pytest.raises(UsageError, match=r"found a similarity of 95\.0"):
        feature_pairs(features, 95.0)


def difference_hash(image):
    """As in `data build`, see the documentation."""
    values = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)).astype(int)
    return int.from_bytes(np.packbits(values[:, 1:] > values[:, :-1]).tobytes(), "big")


def test_the_hash_of_a_mirrored_image_follows_from_its_hash():
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)) for _ in range(20)]
    images = [image.resize((90, 80), Image.Resampling.BICUBIC) for image in small]
    hashes = np.array([difference_hash(image) for image in images], dtype=np.uint64)
    flipped = np.array([difference_hash(ImageOps.mirror(image)) for image in images], dtype=np.uint64)
    assert np.bitwise_count(mirrored(hashes) ^ flipped).max() <= 2  # of equal neighbors, and of rounding
    assert np.bitwise_count(hashes ^ flipped).min() > 10
    assert np.array_equal(mirrored(mirrored(hashes)), hashes)


@pytest.mark.parametrize(("keep", "expected"), [("largest", [2, 5]), ("first", [0, 4]), ("quality", [3, 4])])
def test_one_row_of_each_group_is_kept(keep, expected):
    groups = np.array([0, 0, 0, 0, 1, 1])
    pixels = np.array([100, 400, 400, 100, 50, 60])
    size = np.array([90, 100, 120, 95, 50, 55])
    assert np.flatnonzero(kept_rows(groups, pixels, size, keep)).tolist() == expected


def test_groups_reach_through_other_rows():
    groups = components(6, np.array([[0, 1], [1, 4], [2, 5]]))
    assert groups.tolist() == [0, 0, 1, 2, 0, 1]
    assert components(3, np.zeros((0, 2), np.int64)).tolist() == [0, 1, 2]
