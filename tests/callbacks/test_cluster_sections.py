"""The clusters on the page of a run, from its files: contact sheets, and the same cluster through the epochs."""

import torch
from PIL import Image

from ssl_lightning.callbacks.cluster_sections import SOURCES, cluster_sections, saved_clusters
from ssl_lightning.clustering import Clustering
from ssl_lightning.clustering.saved import cluster_file

K, N = 4, 40
FIRST = torch.arange(N) // 10


class Images:
    """Images with the row as their red value."""

    classes = ("cat", "dog")

    def read(self, rows):
        images = torch.zeros(len(rows), 3, 4, 4, dtype=torch.uint8)
        images[:, 0] = rows[:, None, None].to(torch.uint8)
        return images, torch.ones(len(rows), dtype=torch.bool)


def save(run, step, labels, source="pseudo-labels", distances=True):
    if distances:
        sizes = labels[labels >= 0].bincount(minlength=K)
        clustering = Clustering(labels, torch.arange(N).flip(0).float(), torch.zeros(K, 2), sizes)
    else:
        clustering = Clustering.without_features(labels, K)
    path = cluster_file(run, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    clustering.save(path, {"data": "abc", "source": source, "step": str(step), "epoch": str(step // 10)})


def sections(run, learned=None):
    own = torch.full((N,), -1)
    found = cluster_sections(run / "report", saved_clusters(run), learned, K, Images(), own)
    return {section.title: section for section in found}


def shown(path, line, columns=10):
    """The rows of a line of a sheet by their red value; None for a blank."""
    sheet = Image.open(path)
    pixels = [sheet.getpixel((24 + 50 * column, 24 + 50 * line)) for column in range(columns)]
    return [None if pixel == (255, 255, 255) else pixel[0] for pixel in pixels]


def test_one_file_is_shown_with_where_its_clusters_come_from(tmp_path):
    save(tmp_path, 30, FIRST, source="prototypes")
    found = sections(tmp_path)
    assert list(found) == ["Sizes of the last clusters", "Clusters, largest first"]
    sheets = found["Clusters, largest first"]
    assert sheets.note.startswith(SOURCES["prototypes"])
    assert "nearest to its center (exemplary)" in sheets.note
    assert [figure.file for figure in sheets.figures] == [f"cluster-{k}.png" for k in range(K)]
    assert shown(tmp_path / "report" / "cluster-2.png", 0) == list(range(29, 19, -1))


def test_clusters_are_followed_through_the_epochs(tmp_path):
    order = torch.tensor([2, 0, 3, 1])
    save(tmp_path, 0, FIRST)
    moved = order[FIRST].clone()
    moved[:2] = 1
    save(tmp_path, 10, moved)
    save(tmp_path, 20, moved)
    found = sections(tmp_path, learned=moved.unsqueeze(1))
    over_time = found["Clusters over time"]
    assert over_time.table[1:] == [("0", "1", "5.0", "0", "0"), ("1", "2", "0.0", "0", "0")]
    assert [figure.file for figure in over_time.figures] == ["clusters-over-time.png"]
    assert (tmp_path / "report" / "clusters-over-time.png").is_file()
    sheets = found["Clusters followed over time"].figures
    assert sheets[0].caption == "cluster 1 of the last clustering at epochs 0, 1, 2: 10, 12, 12 images"
    sheet = tmp_path / "report" / sheets[0].file
    assert shown(sheet, 0) == list(range(39, 29, -1))  # ids 3, then 1: the nearest images first
    assert shown(sheet, 1) == list(range(39, 29, -1))


def test_a_line_is_empty_before_the_birth_of_a_cluster(tmp_path):
    save(tmp_path, 0, torch.zeros(N, dtype=torch.long), distances=False)
    scattered = torch.arange(N) % K
    save(tmp_path, 10, scattered, distances=False)
    found = sections(tmp_path)
    assert found["Clusters over time"].table[1] == ("0", "1", "75.0", "3", "0")
    assert (
        found["Clusters followed over time"].figures[0].caption
        == "cluster 0 of the last clustering at epochs 0, 1: 40, 10 images"
    )
    blank = torch.where(scattered == 0, 1, scattered)
    save(tmp_path, 20, blank, distances=False)
    assert sections(tmp_path)["Clusters over time"].table[2][3:] == ("0", "1")


def test_other_kinds_of_clusters_are_no_part_of_the_history(tmp_path):
    save(tmp_path, 10, FIRST, source="features")
    save(tmp_path, 20, FIRST, source="pseudo-labels")
    assert "Clusters over time" not in sections(tmp_path)


def test_a_damaged_file_is_left_out_with_a_line(tmp_path, caplog):
    save(tmp_path, 10, FIRST)
    save(tmp_path, 20, FIRST)
    cluster_file(tmp_path, 20).write_bytes(b"damaged")
    assert "Clusters, largest first" in sections(tmp_path)
    assert "step-20.safetensors" in caplog.text


def test_a_run_without_clusters_has_no_section(tmp_path):
    assert sections(tmp_path) == {}


def test_of_pseudo_labels_that_no_file_holds_the_images_are_shown_without_distances(tmp_path):
    save(tmp_path, 10, FIRST)
    found = sections(tmp_path, learned=(3 - FIRST).unsqueeze(1))["Clusters, largest first"]
    assert found.note == ""
    assert shown(tmp_path / "report" / "cluster-3.png", 0) == list(range(10))


def test_epochs_with_several_clusterings_are_given_as_steps(tmp_path):
    for step in (0, 2, 4):
        save(tmp_path, step, FIRST)
    assert sections(tmp_path)["Clusters over time"].table[2][:2] == ("2", "4")
