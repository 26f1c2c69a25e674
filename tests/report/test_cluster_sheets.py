"""A page of clusters lists which of them it shows."""

import torch

from ssl_lightning.report.cluster_sheets import draw_cluster_sheets

SIZES = torch.tensor([3, 0, 5, 1, 4, 2, 0])
LABELS = torch.arange(len(SIZES)).repeat_interleave(SIZES)


class Plain:
    """Gray images without classes."""

    classes = ()

    def read(self, rows):
        return [torch.zeros(3, 8, 8, dtype=torch.uint8) for _ in rows], torch.ones(len(rows), dtype=torch.bool)


def draw(folder, most):
    return draw_cluster_sheets(folder, LABELS, len(SIZES), Plain(), torch.full_like(LABELS, -1), most=most)


def files(section):
    return [figure.file for figure in section.figures]


def test_all_clusters_that_fit_are_shown_and_nothing_more_is_said(tmp_path):
    section = draw(tmp_path, most=5)
    assert files(section) == [f"cluster-{k}.png" for k in (2, 4, 0, 5, 3)]
    assert section.text == "15 images in 5 of 7 clusters"
    assert [figure.caption for figure in section.figures][-2:] == ["cluster 5: 2 images", "cluster 3: 1 image"]


def test_of_more_the_largest_and_the_smallest_are_shown_and_named_as_such(tmp_path):
    section = draw(tmp_path, most=4)
    assert files(section) == [f"cluster-{k}.png" for k in (2, 4, 5, 3)]
    assert section.text == "15 images in 5 of 7 clusters; shown: the 2 largest and 2 smallest of 5"


def test_images_of_no_cluster_are_counted_apart(tmp_path):
    labels = torch.cat([LABELS, torch.tensor([-1, -1])])
    section = draw_cluster_sheets(tmp_path, labels, len(SIZES), Plain(), torch.full_like(labels, -1))
    assert section.text == "15 images (2 of 17 are in none) in 5 of 7 clusters"
