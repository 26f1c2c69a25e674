"""A cluster followed through the clusterings of a run: a line of images for each."""

import torch
from PIL import Image

from ssl_lightning.report.followed import COLUMNS, draw_followed, draw_history


class Images:
    """Images with the row as their red value; one cannot be read."""

    classes = ()

    def read(self, rows):
        images = torch.zeros(len(rows), 3, 4, 4, dtype=torch.uint8)
        images[:, 0] = rows[:, None, None].to(torch.uint8)
        return images, rows != 3


def test_a_line_has_its_readable_images_and_is_empty_without_a_cluster(tmp_path):
    lines = [torch.tensor([1, 3, 5]), torch.tensor([], dtype=torch.long), torch.arange(10, 10 + COLUMNS)]
    assert draw_followed(tmp_path / "a.png", lines, Images(), side=4)
    sheet = Image.open(tmp_path / "a.png")
    shown = [[sheet.getpixel((2 + 6 * x, 2 + 6 * y)) for x in range(COLUMNS)] for y in range(3)]
    white = (255, 255, 255)
    assert shown[0] == [(1, 0, 0), (5, 0, 0), *[white] * (COLUMNS - 2)]
    assert shown[1] == [white] * COLUMNS
    assert shown[2] == [(row, 0, 0) for row in range(10, 10 + COLUMNS)]


def test_nothing_is_written_where_no_image_can_be_read(tmp_path):
    assert not draw_followed(tmp_path / "a.png", [torch.tensor([3])], Images())
    assert not (tmp_path / "a.png").exists()


def test_curves_of_all_clusters_are_an_image(tmp_path):
    sizes = torch.tensor([[4, 4, 0], [5, 2, 1], [3, 3, 2]])
    assert draw_history(tmp_path / "new" / "a.png", [0.0, 1.0, 2.0], sizes, [0.5, 0.25], [1, 0], [0, 0])
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.width > 1000
