"""Figures of a clustering show the numbers and images that they were given."""

import itertools

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ssl_lightning.report import contact_sheet
from ssl_lightning.report.clusters import EMPTY, draw_cluster_sizes, draw_neighbors, draw_purity, draw_sheets


def heights(axes):
    return [bar.get_height() for bar in axes.patches]


def ticks(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def plain(value):
    return torch.full((3, 4, 4), value, dtype=torch.uint8)


def test_sizes_are_plotted_largest_first_and_empty_clusters_are_marked():
    (axes,) = draw_cluster_sizes(torch.tensor([40, 0, 13, 7, 0, 100])).axes
    assert heights(axes) == [100, 40, 13, 7, 0, 0]
    assert ticks(axes) == ["5", "0", "2", "3", "1", "4"]
    assert axes.collections[0].get_offsets().tolist() == [[4, 0], [5, 0]]
    assert to_hex(axes.collections[0].get_facecolor()[0]) == EMPTY
    assert legend(axes) == ["all equal: 27", "empty: 2"]
    assert axes.get_title() == "160 images in 4 of 6 clusters"
    assert axes.lines[0].get_ydata()[0] == pytest.approx(160 / 6)


def test_without_empty_clusters_none_are_marked():
    (axes,) = draw_cluster_sizes(torch.tensor([4, 9])).axes
    assert not axes.collections
    assert legend(axes) == ["all equal: 6"]


def test_a_thousand_bars_do_not_carry_a_thousand_names():
    (axes,) = draw_cluster_sizes(torch.arange(1000)).axes
    assert len(axes.patches) == 1000
    assert len(axes.get_xticks()) < 20
    assert axes.get_xlabel() == "clusters in this order"


def test_purity_is_in_percent_the_purest_first_beside_the_commonest_label():
    purity = torch.tensor([0.5, torch.nan, 1.0, 0.75])
    (axes,) = draw_purity(purity, torch.tensor([10, 0, 2, 4]), 0.25).axes
    assert heights(axes) == [100, 75, 50]
    assert ticks(axes) == ["2", "3", "0"]
    # (10 x 0.5 + 2 x 1 + 4 x 0.75) / 16 = 0.625
    assert legend(axes) == ["over all images: 62.5 %", "commonest label: 25.0 %"]
    assert [line.get_ydata()[0] for line in axes.lines] == [62.5, 25.0]


def test_purity_without_labels_is_rejected():
    with pytest.raises(ValueError, match="found no labeled images"):
        draw_purity(torch.full((3,), torch.nan), torch.zeros(3, dtype=torch.int64), 0.0)


def test_a_figure_shows_each_sheet_under_its_title():
    sheets = {f"cluster {n}": contact_sheet([plain(n)] * (n + 1), side=6) for n in range(5)}
    figure = draw_sheets(sheets, columns=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(sheets)
    for axes, sheet in zip(figure.axes, sheets.values(), strict=True):
        assert np.array_equal(np.asarray(axes.images[0].get_array()), np.array(sheet))
    assert figure.axes[0].get_gridspec().get_geometry() == (3, 2)


def test_a_figure_without_sheets_is_rejected():
    with pytest.raises(ValueError, match="found no contact sheets"):
        draw_sheets({})


def test_neighbors_lie_beside_their_image():
    queries, near = [plain(1), plain(2)], [plain(n) for n in (11, 12, 13, 21, 22, 23)]
    left, right = draw_neighbors(queries, near, side=4).axes
    assert np.asarray(left.images[0].get_array())[[0, 8], 0, 0].tolist() == [1, 2]
    middle = np.asarray(right.images[0].get_array())[:, :, 0]
    assert middle[0, [0, 8, 16]].tolist() == [11, 12, 13]
    assert middle[8, [0, 8, 16]].tolist() == [21, 22, 23]
    assert not right.patches


def test_neighbors_of_another_class_have_a_red_frame_around_them():
    other = torch.tensor([[False, True], [True, False]])
    _, right = draw_neighbors([plain(1)] * 2, [plain(2)] * 4, other, side=10).axes
    centers = [
        (frame.get_x() + frame.get_width() / 2, frame.get_y() + frame.get_height() / 2) for frame in right.patches
    ]
    assert centers == [(14 + 4.5, 4.5), (4.5, 14 + 4.5)]  # pixel centers: an image covers -0.5 to 9.5
    assert {to_hex(frame.get_edgecolor()) for frame in right.patches} == {EMPTY}
    assert all(10 < frame.get_width() < 14 for frame in right.patches)
    assert "red: another class" in right.get_title()


@pytest.mark.parametrize(("queries", "near"), [(0, 0), (2, 3), (1, 0)])
def test_neighbors_must_be_equally_many_for_each(queries, near):
    with pytest.raises(ValueError, match="expected the same number for each"):
        draw_neighbors([plain(1)] * queries, [plain(2)] * near)


def test_titles_and_names_of_a_figure_do_not_run_into_each_other():
    (axes,) = (figure := draw_cluster_sizes(torch.arange(60))).axes
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(before.x1 <= after.x0 for before, after in itertools.pairwise(boxes))
    assert max(box.y0 for box in boxes) >= axes.xaxis.label.get_window_extent().y1
