"""Rows of the table of clusters: sizes, purity, and which members an image shows."""

import torch
from PIL import Image

from ssl_lightning.report.cluster_rows import EACH, cluster_rows


class Images:
    """Images with the row as their red value; some cannot be read."""

    classes = ("cat", "dog")

    def __init__(self, unreadable=()):
        self.unreadable = unreadable

    def read(self, rows):
        images = torch.zeros(len(rows), 3, 4, 4, dtype=torch.uint8)
        images[:, 0] = rows[:, None, None].to(torch.uint8)
        return images, torch.tensor([int(row) not in self.unreadable for row in rows])


def shown(path):
    """The rows that an image shows, by their red value."""
    sheet = Image.open(path)
    red = {sheet.getpixel((x, y))[0] for x in range(24, sheet.width, 50) for y in range(24, sheet.height, 50)}
    return sorted(red - {255})


def test_the_largest_clusters_come_first_with_size_purity_and_class(tmp_path):
    labels = torch.tensor([2, 2, 2, 0, 0, -1, 4])
    own = torch.tensor([1, 1, 0, 0, -1, 1, -1])
    rows = cluster_rows(tmp_path, labels, Images(), own)
    assert [row.cells()[:4] for row in rows] == [(2, 3, 2 / 3, "dog"), (0, 2, 1.0, "cat"), (4, 1, None, "")]
    assert shown(rows[0].sheet) == [0, 1, 2]
    assert len(cluster_rows(tmp_path, labels, Images(), own, most=2)) == 2


def test_an_image_shows_the_nearest_and_the_farthest_members(tmp_path):
    count = 40
    labels, own = torch.zeros(count, dtype=torch.long), torch.full((count,), -1)
    distances = torch.arange(count).flip(0).float()
    distances[20] = 100.0
    (row,) = cluster_rows(tmp_path, labels, Images(), own, distances)
    assert shown(row.sheet) == sorted([*range(count - EACH, count), 20, *range(EACH - 1)])
    (row,) = cluster_rows(tmp_path, labels, Images(), own)
    assert len(shown(row.sheet)) == 2 * EACH


def test_a_cluster_without_readable_images_has_no_image(tmp_path):
    rows = cluster_rows(tmp_path, torch.tensor([0, 1, 1]), Images(unreadable=(0,)), torch.tensor([-1, -1, -1]))
    assert [row.sheet is None for row in rows] == [False, True]
