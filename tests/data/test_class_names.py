"""Labels of two sources are joined by class name, wherever they meet."""

import logging
import math
import re

import pytest
import torch

from ssl_lightning.data import CuratedImages, Digits, ProbeSet, UncuratedImages, UnionImages
from ssl_lightning.data.class_names import class_differences, joined_classes, relabeled
from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation import KNN, FewShot, LabelledFeatures, LinearProbe

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def layout(png, **splits):
    """Three images of each class of each split, an image of a class with the same color everywhere."""
    colors = {}
    return {
        f"{split}/{name}/{n}.png": png(colors.setdefault(name.lower(), len(colors)))
        for split, names in splits.items()
        for name in names
        for n in range(3)
    }


def named(dataset):
    return [dataset.classes[label] for label in dataset.labels]


def features(dataset):
    """Features that give away the folder, as those of a perfect network."""
    places = [("ant", "bee", "cow", "dog").index(name.split("/")[-2]) for name in dataset.names]
    return LabelledFeatures(torch.eye(4)[places], dataset.labels, len(dataset.classes))


@pytest.mark.parametrize("container", ["folder", "tar", "tar of one folder"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("absent", ["ant", "bee", "cow"])
@pytest.mark.parametrize("lacks", ["train", "test"])
def test_a_class_that_one_split_lacks_shifts_no_label(lacks, absent, given, container, folder, tar, png, caplog):
    names = {
        split: [name for name in ("ant", "bee", "cow") if split != lacks or name != absent]
        for split in ("train", "test")
    }
    files = layout(png, **names)
    if container == "tar of one folder":
        files = {f"mine/{name}": content for name, content in files.items()}
    path = str(folder(files) if container == "folder" else tar(files.items()))
    sets = {"mine": ProbeSet(f"{path}/train", f"{path}/test")} if given else None
    with caplog.at_level(logging.INFO):
        ((name, (train, test)),) = CuratedImages(path=path, probe_sets=sets).probes.items()
    assert name == ("mine" if given else "images")
    assert train.classes == test.classes
    assert train.classes[: len(names["train"])] == names["train"]
    assert sorted(set(named(train))) == names["train"]
    assert sorted(set(named(test))) == names["test"]
    (line,) = (record.getMessage() for record in caplog.records if "classes in train" in record.getMessage())
    assert f"1 only in {'test' if lacks == 'train' else 'train'} ({absent}" in line
    known = 1.0 if lacks == "test" else 2 / 3
    for probe in (LinearProbe(), KNN(k=3)):
        accuracy = next(iter(probe(features(train), features(test)).values()))
        assert accuracy == pytest.approx(known)


def test_no_class_in_common_is_reported_before_training_and_few_shot_is_evaluated(folder, png, caplog):
    path = str(folder(layout(png, train=["ant", "bee"], test=["cow", "dog"])))
    train, test = CuratedImages(path=path).probes["images"]
    assert "no class in common: linear and k-NN probes are not evaluated (NaN)" in caplog.text
    assert math.isnan(LinearProbe()(features(train), features(test))["linear/top1"])
    assert math.isnan(KNN()(features(train), features(test))["knn/top1"])
    many = LabelledFeatures(torch.eye(4)[test.labels.repeat(5)], test.labels.repeat(5), len(test.classes))
    assert FewShot(ways=2, shots=(1,))(features(train), many)["fewshot/2way1shot"] == 1.0


def test_names_are_equal_after_unicode_normalization_and_differ_by_case(folder, png, caplog):
    path = str(folder(layout(png, train=[COMPOSED, "Cat"], test=[DECOMPOSED, "cat"])))
    train, test = CuratedImages(path=path).probes["images"]
    assert train.classes == ["Cat", COMPOSED, "cat"]
    assert set(named(train)) & set(named(test)) == {COMPOSED}
    assert "'Cat' and 'cat' differ in case only" in caplog.text
    both = CuratedImages(path=str(folder(layout(png, train=[COMPOSED, DECOMPOSED], test=[COMPOSED]), "both")))
    assert both.training.classes == [COMPOSED]


def test_a_hidden_class_in_the_list_alone_is_evaluated_as_absent():
    assert class_differences(["a", "b"], ["a", "b"]) == ""
    assert class_differences(list("abcdefg"), ["a"]) == "6 only in train (b, c, d, e, f and 1 more)"


def test_lists_are_joined_in_the_order_of_the_first():
    joined = joined_classes([["b", "a"], ["c", "a"]])
    assert joined == ["b", "a", "c"]
    assert relabeled(torch.tensor([0, 1, -1]), ["c", "a"], joined).tolist() == [2, 1, -1]
    assert joined_classes([["x", "x"], ["x", "x"]]) == ["x", "x"]


@pytest.mark.parametrize("name", ["", "a/b"])
def test_a_name_that_no_metric_can_have_is_rejected(name):
    with pytest.raises(UsageError, match=r"found a probe set named .*; expected a name without a slash"):
        Digits(probe_sets={name: ProbeSet("digits/train", "digits/test")})


@pytest.mark.parametrize("container", ["folder", "tar"])
def test_a_split_that_is_train_and_test_is_reported(container, folder, tar, png, caplog):
    files = layout(png, train=("ant", "bee"), test=("ant", "bee"))
    path = str(folder(files) if container == "folder" else tar(files.items()))
    given = {"same": ProbeSet(f"{path}/test", f"{path}/test"), "right": ProbeSet(f"{path}/train", f"{path}/test")}
    assert list(UncuratedImages(path=path, probe_sets=given).probes) == ["same", "right"]
    assert "probe set same: train and test are the same 6 images" in caplog.text
    assert "probe set right" not in caplog.text
    caplog.clear()
    assert CuratedImages(path=path, test_split="train").probes
    assert "train and test are the same 6 images" in caplog.text


@pytest.mark.parametrize("name", ["val", "valid"])
@pytest.mark.parametrize("container", ["folder", "tar", "tar of one folder"])
def test_a_validation_split_counts_as_test_where_there_is_none(name, container, folder, tar, png, caplog):
    files = layout(png, **{"train": ["a", "b"], name: ["a", "b"]})
    if container == "tar of one folder":
        files = {f"top/{name}": content for name, content in files.items()}
    path = str(folder(files) if container == "folder" else tar(files.items()))
    with caplog.at_level(logging.INFO):
        train, test = CuratedImages(path=path).probes["images"]
    assert (len(train), len(test)) == (6, 6)
    assert f"found no split 'test' in {path}: '{name}' is the test split" in caplog.text
    files |= {f"{'top/' if 'one' in container else ''}test/a/1.png": png(1)}
    path = str(folder(files, "with") if container == "folder" else tar(files.items(), "with.tar"))
    assert len(next(iter(CuratedImages(path=path).probes.values()))[1]) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "found splits Test, train in .*; expected 'test': give --data.test_split one of these"),
        ({"test_split": "val"}, "found splits Test, train in .*; expected 'val'"),
        (
            {"split": None},
            "data.split is null, so there is no test split; give --data.split train, or name labeled splits",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_reported_at_set_up(options, line, folder, png, caplog):
    path = str(folder(layout(png, train=["a"], Test=["a"])))
    assert CuratedImages(path=path, **options).probes == {}
    (found,) = (record.getMessage() for record in caplog.records)
    assert found.startswith("nothing is evaluated: ")
    assert re.search(line, found)


def test_probe_sets_of_other_images_are_reported(folder, png, caplog):
    path = str(folder(layout(png, train=["a"], test=["a"])))
    digits = ProbeSet("digits/train", "digits/test")
    cases = [
        (CuratedImages(path=path, probe_sets={"digits": digits}), "no probe set is of the training images"),
        (UncuratedImages(path=path, probe_sets={"digits": digits}), "no probe set is of the training images"),
        (CuratedImages(path=path, probe_sets={"a": ProbeSet(f"{path}/train", f"{path}/test"), "b": digits}), ""),
        (Digits(probe_sets={"digits": digits}), ""),
        (UncuratedImages(path=path, probe_sets={}), "nothing is evaluated"),
    ]
    for module, expected in cases:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            _ = module.probes
        (line,) = (record.getMessage() for record in caplog.records)
        assert expected in line
        assert ("no probe set" in line) == ("no probe set" in expected)


def test_a_union_joins_classes_by_name_and_loses_no_probe_set(folder, png):
    first = str(folder(layout(png, train=["bee", "cow"], test=["bee", "cow"]), "a/pets"))
    second = str(folder(layout(png, train=["ant", "bee"], test=["ant", "bee"]), "b/pets"))
    union = UnionImages(sources=[CuratedImages(path=first), CuratedImages(path=second), CuratedImages(path=first)])
    assert union.training.classes == ["bee", "cow", "ant"]
    assert named(union.training) == ["bee"] * 3 + ["cow"] * 3 + ["ant"] * 3 + ["bee"] * 3 + ["bee"] * 3 + ["cow"] * 3
    assert list(union.probes) == ["pets", "pets-2"]
