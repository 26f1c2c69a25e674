"""Clusters of every kind of method: saved ones, pseudo-labels, prototypes, and k-means of features."""

import math

import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.clustering import Clustering
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.inspect import (
    Clusters,
    cluster_history,
    cluster_numbers,
    cluster_table,
    clusters,
    draw_clusters,
    draw_followed,
    draw_history,
    draw_map,
    draw_neighbors,
    draw_purity,
    draw_sizes,
    features,
    hover_html,
    load_run,
    saved_clusters,
)
from ssl_lightning.inspect.clustered import with_distances


@pytest.fixture
def unsaved(monkeypatch):
    """Runs without saved clusters."""
    monkeypatch.setattr("ssl_lightning.inspect.clustered.saved_clusters", lambda run: {})


def test_pseudo_labels_are_those_of_the_checkpoint(deepcluster, unsaved):
    run = load_run(deepcluster)
    found = clusters(run)
    assert torch.equal(found.labels, run.method.pseudo_labels.rows[:, 0].long())
    assert (found.count, found.source, found.step) == (12, "pseudo-labels", 2)
    assert str(found).startswith("1,438 images in ")


def test_without_pseudo_labels_an_image_has_its_nearest_prototype(swav, unsaved):
    run = load_run(swav)
    found = clusters(run, max_images=60)
    images = features(run, "projector", max_images=60)
    prototypes = F.normalize(run.method.prototypes.weight.detach(), dim=1)
    for row, z in zip(images.rows.tolist(), images.values, strict=True):
        scores = [float(z @ prototype) for prototype in prototypes]
        assert int(found.labels[row]) == max(range(10), key=scores.__getitem__)
        assert float(found.distances[row]) == pytest.approx(1 - max(scores), abs=1e-5)
    assert (found.count, found.source) == (10, "prototypes")
    assert str(found).endswith("; 1,378 images in none")


def test_a_contrastive_method_has_clusters_of_its_features(simclr, unsaved):
    run = load_run(simclr)
    found = clusters(run, max_images=200)
    images = features(run, max_images=200)
    assert (found.count, found.source) == (4, "features")
    assert int((found.labels >= 0).sum()) == 200
    unit, own = F.normalize(images.values, dim=1), found.labels[images.rows]
    centers = torch.stack([F.normalize(unit[own == k].mean(0), dim=0) for k in range(4)])
    assert float(((unit @ centers.T).argmax(1) == own).double().mean()) > 0.95
    assert clusters(run, num_clusters=7, max_images=200).count == 7
    assert clusters(run, max_images=30).count == 2


def test_saved_clusters_come_first_and_by_their_step(simclr, tmp_path):
    run = load_run(simclr)
    run.path = tmp_path
    (tmp_path / "clusters").mkdir()
    labels = torch.arange(1438) % 4
    metadata = {"data": run.data.fingerprint, "source": "features", "epoch": "1"}
    for step in (9, 10):
        moved = (labels + step) % 4
        clustering = Clustering(moved, torch.rand(1438), torch.zeros(4, 2), moved.bincount())
        clustering.save(tmp_path / "clusters" / f"step-{step}.safetensors", metadata | {"step": str(step)})
    assert list(saved_clusters(run)) == [9, 10]
    assert torch.equal(clusters(run).labels, (labels + 10) % 4)
    assert (clusters(run).step, clusters(run).source) == (10, "features")
    assert torch.equal(clusters(run, step=9).labels, (labels + 9) % 4)
    with pytest.raises(UsageError, match="found step=3; expected one of the steps with saved clusters: 9, 10"):
        clusters(run, step=3)
    Clustering(labels, torch.rand(1438), torch.zeros(4, 2), labels.bincount()).save(
        tmp_path / "clusters" / "step-11.safetensors", {"data": "0" * 64, "step": "11"}
    )
    with pytest.raises(DataError, match=r"clusters of 1438 \(000000000000\)"):
        clusters(run)


def test_the_table_and_the_numbers_are_counted_by_hand(deepcluster, unsaved):
    run = load_run(deepcluster)
    found = clusters(run)
    table = cluster_table(run, found)
    assert table["size"].tolist() == sorted(found.sizes.tolist(), reverse=True)
    for cluster, row in table.iterrows():
        own = run.data.labels[found.labels == cluster].tolist()
        counts = {label: own.count(label) for label in own}
        top = max(counts, key=lambda label: (counts[label], -label)) if counts else None
        assert row["class"] == (run.data.training.classes[top] if counts else "")
        share = counts[top] / len(own) if counts else math.nan
        assert row["purity"] == pytest.approx(share, nan_ok=True)
    assert cluster_numbers(run, found)["largest_share"] == int(found.sizes.max()) / 1438


def test_every_figure_has_axes(deepcluster):
    run = load_run(deepcluster)
    found, images = clusters(run), features(run, max_images=300)
    assert len(draw_clusters(run, found, images, most=4).axes) == 4
    assert draw_sizes(found).axes[0].get_title().startswith("1,438 images in")
    assert draw_purity(run, found).axes
    assert len(draw_map(run, found, images, how="pca").axes) == 2
    assert "of the 10 nearest neighbors" in draw_neighbors(run, images)._suptitle.get_text()


def test_a_sentence_takes_the_place_of_a_figure_without_labels_or_images(deepcluster, monkeypatch):
    run = load_run(deepcluster)
    found, images = clusters(run), features(run, max_images=2)
    monkeypatch.setattr(run.data.training, "labels", torch.full((1438,), -1))  # all runs share the digits
    assert not run.has_labels
    assert draw_purity(run, found) == "no image of a cluster has a label: purity needs labels"
    assert draw_map(run, found, images) == "found 2 images; a map needs 4"
    assert draw_neighbors(run, images) == "found 2 images; 10 neighbors need more"
    empty = Clusters(torch.full((1438,), -1), torch.full((1438,), torch.nan), 3, "nothing", 0)
    assert draw_clusters(run, empty, images) == "no image is in a cluster"


def test_images_near_the_centroid_come_first(deepcluster, unsaved):
    run = load_run(deepcluster)
    images = features(run, max_images=300)
    found = with_distances(clusters(run), images)
    assert int((~found.distances.isnan()).sum()) == 300
    cluster = int(found.sizes.argmax())
    members = images.rows[found.labels[images.rows] == cluster]
    own = images.values[found.labels[images.rows] == cluster]
    expected = (own - own.mean(0)).norm(dim=1)
    torch.testing.assert_close(found.distances[members], expected)


def test_saved_clusters_of_several_steps_have_a_history(deepcluster, tmp_path):
    run = load_run(deepcluster)
    run.path = tmp_path
    assert len(cluster_history(run)) == 0
    assert draw_history(run) == "the run has saved 0 clusterings; a history needs two of the same kind"
    assert draw_followed(run) == draw_history(run)
    labels = torch.arange(1438) % 4
    moved = labels.clone()
    moved[:100] = 3
    for step, column in ((5, labels), (8, moved), (9, (moved + 1) % 4)):
        clustering = Clustering.without_features(column, 4)
        facts = {"data": run.data.fingerprint, "source": "pseudo-labels"}
        (tmp_path / "clusters").mkdir(exist_ok=True)
        clustering.save(tmp_path / "clusters" / f"step-{step}.safetensors", facts)
    history = cluster_history(run)
    assert history.index.tolist() == [5, 8, 9]
    assert history.churn.tolist()[1:] == pytest.approx([75 / 1438, 0])  # of 100 moved images 25 were there before
    assert history.largest.tolist() == [360, 434, 434]
    assert history[["births", "deaths"]].iloc[1:].to_numpy().tolist() == [[0, 0], [0, 0]]
    assert len(draw_history(run).axes) == 3
    titles = [axes.get_title(loc="left") for axes in draw_followed(run).axes]
    assert titles == [
        "step 5: cluster 3, 359 images",
        "step 8: cluster 3, 434 images",
        "step 9: cluster 0, 434 images",
    ]


def test_a_map_for_the_pointer_has_an_image_for_each_point(deepcluster):
    run = load_run(deepcluster)
    images = features(run, max_images=60)
    page = hover_html(run, images, clusters(run), max_points=40)
    assert page.count("h0") == 40
    assert "data:image/jpeg;base64," in page
    assert 'src="http' not in page
