"""Tables, pictures and the page: what stands where."""

import html.parser

import numpy as np
import pytest
import torch

from ssl_lightning.clustering import purity
from ssl_lightning.evaluation import neighbours
from ssl_lightning.report import (
    Figure,
    Section,
    contact_sheet,
    draw_curves,
    percent_table,
    representatives,
    results_table,
    write_page,
)
from ssl_lightning.report.clusters import draw_map, draw_purity, draw_sizes, feature_map


def plain(value, height=8, width=8):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def test_a_sheet_has_a_square_for_each_picture_row_by_row():
    sheet = np.asarray(contact_sheet([plain(v) for v in (10, 20, 30, 40)], columns=3, side=16, gap=4))
    assert sheet.shape == (16 + 4 + 16, 3 * 16 + 2 * 4, 3)
    assert (sheet[:16, :16] == 10).all()
    assert (sheet[:16, 20:36] == 20).all()
    assert (sheet[20:, :16] == 40).all()
    assert (sheet[20:, 20:] == 255).all()
    assert (sheet[16:20] == 255).all()


def test_a_picture_that_is_not_square_is_fitted_and_centred():
    sheet = np.asarray(contact_sheet([plain(0, height=4, width=8)], side=16))
    assert sheet.shape == (16, 16, 3)
    assert (sheet[4:12] == 0).all()
    assert (sheet[:4] == 255).all()
    assert (sheet[12:] == 255).all()


def test_no_pictures_make_no_sheet():
    with pytest.raises(ValueError, match="found no pictures"):
        contact_sheet([])


def test_representatives_are_the_nearest_and_some_of_the_rest():
    labels = torch.tensor([0, 1] * 10)
    distances = torch.arange(20).flip(0).float()
    rows = representatives(labels, distances, 0, 4)
    assert rows.tolist() == [18, 16, 14, 0]  # the two nearest of 18, 16, ..., 0; the first and the last of the rest
    assert representatives(labels, None, 1, 3).tolist() == [1, 9, 19]
    assert representatives(labels, distances, 1, 50).tolist() == list(range(1, 20, 2))
    assert representatives(labels, distances, 7, 5).tolist() == []


class Reader(html.parser.HTMLParser):
    """What a browser would see."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        """Open elements, but for those that have no end."""
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Each ends what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Collect."""
        self.text += data


def test_the_page_is_whole_and_shows_names_as_they_are(tmp_path):
    figures = [Figure("cluster-1.png", '40 % "<b>cat</b>" & dog'), Figure("cluster-2.png", "rest")]
    write_page(tmp_path / "report" / "index.html", "run <1>", [Section("Clusters", "a < b", figures)])
    reader = Reader()
    reader.feed((tmp_path / "report" / "index.html").read_text())
    assert reader.open == []
    assert [image["src"] for image in reader.images] == ["cluster-1.png", "cluster-2.png"]
    assert '40 % "<b>cat</b>" & dog' in reader.text
    assert "run <1>" in reader.text
    assert "a < b" in reader.text


def test_a_table_shows_percent_half_widths_and_gaps():
    rows = {
        "pixels": {"knn/top1": 0.9812, "fewshot/5way1shot": 0.731, "fewshot/5way1shot/ci95": 0.008},
        "trained": {"knn/top1": float("nan"), "linear/top1": 1.0},
    }
    title, pixels, trained = percent_table(rows, title="percent").splitlines()
    assert title.split() == ["percent", "linear", "k-NN", "20", "5-way", "1-shot"]
    assert pixels.split() == ["pixels", "98.1", "73.1", "±0.8"]
    assert trained.split() == ["trained", "100.0", "nan"]
    assert len(title) == len(pixels) == len(title.rstrip())


def test_the_first_and_the_last_judged_rows_of_every_probe_set_are_shown(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,train/loss,eval/knn/top1,eval/flowers/knn/top1\n"
        "0,0,,0.1,0.2\n10,0,3.5,,\n20,1,,0.3,0.4\n40,2,,0.5,0.6\n"
    )
    lines = [line.split() for line in results_table(tmp_path / "metrics.csv").splitlines()]
    assert lines == [
        ["eval", "k-NN", "20"],
        ["untrained", "10.0"],
        ["step", "40", "50.0"],
        ["eval/flowers", "k-NN", "20"],
        ["untrained", "20.0"],
        ["step", "40", "60.0"],
    ]
    assert "nothing was judged" in results_table(tmp_path / "absent.csv")


def test_curves_show_what_there_is_and_nothing_makes_no_picture(tmp_path):
    assert not draw_curves([{"epoch": "0", "step": "1", "other": "2"}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    rows = [{"epoch": str(epoch), "cluster/nmi_labels": str(0.1 * epoch), "train/loss": ""} for epoch in range(3)]
    assert draw_curves(rows, tmp_path / "deep" / "curves.png")
    assert (tmp_path / "deep" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_sizes_are_bars_from_the_largest_and_empty_ones_are_counted():
    axes = draw_sizes(torch.tensor([3, 0, 9])).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [9, 3, 0]
    assert axes.get_title() == "3 clusters, 1 empty"


def test_purity_is_the_share_of_the_commonest_class():
    labels, own = torch.tensor([0, 0, 0, 1, 1, 2, -1]), torch.tensor([5, 5, 2, 2, -1, -1, 5])
    shares = purity(labels, own, 4)
    assert shares[:2].tolist() == pytest.approx([2 / 3, 1.0])
    assert shares[2:].isnan().all()
    axes = draw_purity(shares, 0.4).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 2
    assert axes.get_title() == "mean purity 0.83"


def test_neighbours_are_the_most_similar_others():
    angles = torch.tensor([0.0, 0.1, 0.5, 3.0, 0.3])
    features = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [50.0], [2.0], [3.0], [0.1]])
    assert neighbours(features, torch.tensor([0, 3]), 3).tolist() == [[1, 4, 2], [2, 4, 1]]
    assert neighbours(features, torch.tensor([0]), 50).shape == (1, 4)


def test_a_map_keeps_groups_together_and_the_seed_names_it():
    labels = torch.arange(3).repeat(20)
    features = torch.eye(3)[labels] + 0.05 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    points = feature_map(features)
    assert torch.equal(points, feature_map(features))
    centres = torch.stack([points[labels == kind].mean(0) for kind in range(3)])
    assert torch.cdist(points, centres).argmin(1).tolist() == labels.tolist()
    figure = draw_map(points, labels, "kinds", names=["a", "b", "c"])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a", "b", "c"]


@pytest.mark.parametrize("rows", [3, 1501])
def test_too_few_or_too_many_rows_make_no_map(rows):
    with pytest.raises(ValueError, match="for a map"):
        feature_map(torch.randn(rows, 4))
