"""Head and tail: which classes they are, and that every probe reports the accuracy of their test images."""

import pytest
import torch

from ssl_lightning.callbacks.class_groups import groups_of
from ssl_lightning.data.dataset import InMemoryImages
from ssl_lightning.evaluation import KNN, FewShot, LabelledFeatures, LinearProbe, LowShot
from ssl_lightning.evaluation.class_groups import accuracies, head_and_tail

SIZES = [30, 2000, 600, 20, 300, 90]


def groups(sizes):
    return {name: classes.tolist() for name, classes in head_and_tail(sizes).items()}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (SIZES, {"head": [1, 2], "tail": [0, 3]}),
        ([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50], {"head": [0, 1, 2], "tail": [7, 8, 9]}),
        ([100, 10, 10, 10], {"head": [0], "tail": [3]}),
        ([100, 11, 20], {}),  # not ten times as many
        ([100, 10], {}),  # two classes have no thirds
        ([1000, 0, 100, 0, 10], {"head": [0], "tail": [4]}),  # absent classes belong to none
        ([], {}),
        ([0, 0, 0], {}),
    ],
)
def test_head_and_tail_are_the_thirds_with_the_most_and_the_fewest_images(sizes, expected):
    assert groups(sizes) == expected


def test_the_accuracy_of_a_group_is_over_its_own_rows():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    test = LabelledFeatures(
        torch.zeros(6, 1),
        labels,
        4,
        {"head": torch.tensor([0, 1]), "tail": torch.tensor([2]), "none": torch.tensor([3])},
    )
    correct = torch.tensor([True, True, True, False, False, True])
    assert accuracies("x/top1", correct, test) == {"x/top1": 4 / 6, "x/top1_head": 0.75, "x/top1_tail": 0.5}


def split(rows, seed, **options):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 6
    centers = torch.randn(6, 8, generator=torch.Generator().manual_seed(9))
    return LabelledFeatures(centers[labels] + 1.5 * torch.randn(rows, 8, generator=generator), labels, 6, **options)


@pytest.mark.parametrize(
    ("probe", "names"),
    [
        (KNN(), ["knn/top1"]),
        (KNN(k=5), ["knn5/top1"]),
        (LinearProbe(), ["linear/top1"]),
        (LinearProbe(classifier="ridge"), ["ridge/top1"]),
        (LowShot(shares=(0.2,)), ["lowshot/20pct/top1"]),
    ],
)
def test_every_probe_reports_groups_that_make_up_the_whole(probe, names):
    two = {"head": torch.tensor([0, 1, 2]), "tail": torch.tensor([3, 4, 5])}
    train, test, whole = split(300, 0), split(120, 1, groups=two), split(120, 1)
    found, before = probe(train, test), probe(train, whole)
    for name in names:
        parts = [found.pop(f"{name}_{group}") for group in two]
        assert sum(parts) / 2 == pytest.approx(before[name.removesuffix("/top1") if "pct" in name else name])
    assert found == before


def test_few_shot_episodes_have_no_groups():
    test = split(300, 1, groups={"head": torch.tensor([0])})
    assert not any("head" in name for name in FewShot(episodes=10)(test, test))


def test_sizes_are_those_of_the_run_if_it_has_every_class():
    classes = list("abcdef")
    labels = torch.arange(6).repeat_interleave(torch.tensor(SIZES))
    probe = InMemoryImages(torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8), labels, classes)
    own, line = groups_of(probe, {})
    assert {name: found.tolist() for name, found in own.items()} == {"head": [1, 2], "tail": [0, 3]}
    expected = "head (2 classes of 2000 to 600 images: b, c) and tail (2 classes of 30 to 20 images: a, d)"
    assert line == f"{expected}, by its training split"
    of_run, line = groups_of(probe, {"f": 500, "e": 400, "d": 30, "c": 20, "b": 10, "a": 5, "other": 9000})
    assert {name: found.tolist() for name, found in of_run.items()} == {"head": [5, 4], "tail": [1, 0]}
    assert line.endswith("by the training images")
    lacking, _ = groups_of(probe, {"f": 500, "e": 400, "d": 30, "c": 20, "b": 10, "a": 0})
    assert lacking["head"].tolist() == [1, 2]
    assert groups_of(probe, dict.fromkeys(classes, 100)) == ({}, "")
