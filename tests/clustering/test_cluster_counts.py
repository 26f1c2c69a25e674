"""choices: stability and agreement of clusterings with a known result, and files of features."""

import pytest
import torch
from safetensors.torch import save_file

from ssl_lightning.clustering import KMeans
from ssl_lightning.clustering.cluster_counts import score_cluster_counts
from ssl_lightning.clustering.feature_file import FeatureFile


def blobs(classes=4, each=50):
    generator = torch.Generator().manual_seed(0)
    centers = 20 * torch.randn(classes, 8, generator=generator)
    labels = torch.arange(classes).repeat_interleave(each)
    return centers[labels] + 0.1 * torch.randn(classes * each, 8, generator=generator), labels


def test_the_right_number_of_separate_blobs_is_stable_and_agrees():
    features, labels = blobs()
    found = {
        score.k: score for score in score_cluster_counts(features, labels, KMeans(init="k-means++"), [2, 4, 16], 3)
    }
    assert list(found) == [2, 4, 16]
    assert min(found[4].stability) == pytest.approx(1.0)
    assert min(found[4].ami) == pytest.approx(1.0)
    assert found[4].imbalance == [pytest.approx(1.0)] * 3
    assert max(found[16].stability) < 0.99
    assert max(found[16].ami) < 0.99
    means = [sum(found[k].objective) for k in (2, 4, 16)]
    assert means == sorted(means, reverse=True)


def test_the_objective_is_the_mean_squared_distance():
    features, labels = blobs()
    (found,) = score_cluster_counts(features, labels, KMeans(), [1], 2)
    expected = float((features - features.mean(0)).square().sum(1).mean())
    assert found.objective == [pytest.approx(expected, rel=1e-4)] * 2


def test_without_labels_there_is_no_agreement():
    features, labels = blobs()
    (found,) = score_cluster_counts(features, torch.full_like(labels, -1), KMeans(), [3], 2)
    assert (found.nmi, found.ami) == ([], [])
    assert len(found.stability) == 1


def test_a_file_of_features_comes_back_as_it_was_or_not_at_all(tmp_path):
    features, labels = blobs()
    path = tmp_path / "deep" / "features.safetensors"
    FeatureFile(features, torch.arange(len(labels)), labels, {"data": "x"}).save(path)
    loaded = FeatureFile.load(path)
    assert torch.equal(loaded.features, features)
    assert torch.equal(loaded.labels, labels)
    assert loaded.metadata == {"data": "x"}
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"features\.safetensors, which is not a whole file of features"):
        FeatureFile.load(path)
    save_file({"features": features[:-1].contiguous(), "rows": torch.arange(len(labels)), "labels": labels}, path)
    with pytest.raises(ValueError, match="do not belong together"):
        FeatureFile.load(path)
