"""Where each image of a sheet lies, which images stand for a cluster."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.report import contact_sheet, representatives, save_png


def plain(color, height=8, width=8):
    return torch.tensor(color, dtype=torch.uint8).view(3, 1, 1).expand(3, height, width).contiguous()


def pixels(sheet):
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


COLORS = [(10 * n, 255 - 10 * n, 5 * n) for n in range(7)]


def test_images_lie_row_by_row_with_white_between_and_none_around():
    sheet = pixels(contact_sheet([plain(color) for color in COLORS], columns=3, side=8, gap=2))
    expected = torch.full((3, 3 * 8 + 2 * 2, 3 * 8 + 2 * 2), 255, dtype=torch.uint8)
    for number, color in enumerate(COLORS):
        for y in range(8):
            for x in range(8):
                expected[:, number // 3 * 10 + y, number % 3 * 10 + x] = torch.tensor(color, dtype=torch.uint8)
    assert torch.equal(sheet, expected)


def test_a_sheet_is_no_wider_than_its_images():
    assert contact_sheet([plain((1, 2, 3))] * 2, columns=10, side=5, gap=1).size == (11, 5)
    assert contact_sheet([plain((1, 2, 3))], columns=10, side=5, gap=3).size == (5, 5)


def test_a_image_that_fits_is_not_changed():
    image = torch.randint(256, (3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pixels(contact_sheet([image], side=9)), image)


def test_small_images_keep_hard_pixels():
    image = torch.randint(256, (3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    enlarged = image.repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert torch.equal(pixels(contact_sheet([image], side=12)), enlarged)


@pytest.mark.parametrize(("height", "width", "box"), [(10, 20, (0, 5, 20, 15)), (20, 10, (5, 0, 15, 20))])
def test_an_oblong_image_lies_in_the_middle_of_its_square(height, width, box):
    sheet = contact_sheet([plain((0, 0, 0), height, width)], side=20)
    assert sheet.size == (20, 20)
    white = Image.fromarray(255 - np.array(sheet))
    left, top, right, bottom = box
    inside = np.zeros((20, 20), dtype=bool)
    inside[top:bottom, left:right] = True
    assert white.getbbox() == box
    assert (np.array(sheet)[inside] == 0).all()
    assert (np.array(sheet)[~inside] == 255).all()


def test_a_line_of_pixels_does_not_vanish():
    assert (np.array(contact_sheet([plain((0, 0, 0), 1, 500)], side=20)) == 0).all(-1).sum() == 20


def test_large_images_are_shrunk_as_pillow_does_it():
    image = torch.randint(256, (3, 90, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sheet = pixels(contact_sheet([image], side=30))[:, :, 5:25].int()
    reference = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((20, 30), Image.Resampling.BILINEAR)
    assert (sheet - pixels(reference).int()).abs().max() <= 1


def test_images_of_several_sizes_share_a_sheet():
    sheet = np.array(contact_sheet([plain((9, 9, 9), 30, 30), plain((7, 7, 7), 3, 3)], side=10, gap=1))
    assert (sheet[:, :10] == 9).all()
    assert (sheet[:, 10] == 255).all()
    assert (sheet[:, 11:] == 7).all()


@pytest.mark.parametrize("options", [{"columns": 0}, {"side": 0}, {"gap": -1}])
def test_a_grid_without_size_is_rejected(options):
    with pytest.raises(ValueError, match=r"expected at least 1, 1 and 0"):
        contact_sheet([plain((1, 2, 3))], **options)


def test_a_sheet_without_images_is_rejected():
    with pytest.raises(ValueError, match="found no images"):
        contact_sheet([])


LABELS = torch.tensor([0, 1, 1, 1, 0, 1, 1, 1, -1, 1])
DISTANCES = torch.tensor([0.0, 0.7, 0.1, 0.5, 0.0, 0.3, 0.2, 0.6, 0.0, 0.4])
# members of cluster 1 by distance: rows 2, 6, 5, 9, 3, 7, 1


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        (1, [2]),
        (2, [2, 1]),
        (3, [2, 6, 1]),
        (4, [2, 6, 7, 1]),
        (5, [2, 6, 5, 7, 1]),
        (7, [2, 6, 5, 9, 3, 7, 1]),
        (20, [2, 6, 5, 9, 3, 7, 1]),
    ],
)
def test_representatives_are_the_nearest_and_then_the_farthest(count, rows):
    assert representatives(LABELS, DISTANCES, 1, count).tolist() == rows


def test_without_distances_representatives_are_spread_over_the_rows():
    assert representatives(LABELS, None, 1, 3).tolist() == [1, 5, 9]
    assert representatives(LABELS, None, 1, 4).tolist() == [1, 3, 6, 9]
    assert representatives(LABELS, torch.full((10,), torch.nan), 1, 4).tolist() == [1, 3, 6, 9]


def test_an_empty_cluster_has_no_representatives():
    assert representatives(LABELS, DISTANCES, 5, 3).tolist() == []


@pytest.mark.parametrize("size", [7, 40, 1000])
@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_representatives_are_that_many_different_members(size, count):
    distances = torch.rand(size, generator=torch.Generator().manual_seed(size))
    rows = representatives(torch.zeros(size, dtype=torch.int64), distances, 0, count)
    assert len(set(rows.tolist())) == count
    assert rows[0] == distances.argmin()


def test_a_png_is_written_with_its_folder(tmp_path):
    sheet = contact_sheet([plain((1, 2, 3))], side=4)
    save_png(sheet, tmp_path / "new" / "folder" / "a.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "new" / "folder" / "a.png")), np.array(sheet))
