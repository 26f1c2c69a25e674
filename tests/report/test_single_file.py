"""A page in one file has its images in itself, and nothing from outside its folder."""

import base64
import re

import pytest
import torch
from PIL import Image

from ssl_lightning.report import Figure, Section, write_page
from ssl_lightning.report.hover_map import hover_map
from ssl_lightning.report.single_file import single_file
from ssl_lightning.report.thumbnails import Thumbnails


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "report").mkdir()
    for name in ("report/a b#1.png", "report/thumbnails.jpg", "secret.png"):
        Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / name)
    (tmp_path / "report" / "notes.txt").write_text("secret")
    (tmp_path / "report" / "link.png").symlink_to(tmp_path / "secret.png")
    return tmp_path / "report"


def page_of(folder, *names, markup=""):
    write_page(folder / "index.html", "run", [Section("a", "", [Figure(name, name) for name in names], markup=markup)])
    return single_file(folder / "index.html")


def test_images_and_thumbnails_are_in_the_file(folder):
    points = hover_map({"a": torch.rand(4, 2)}, Thumbnails("thumbnails.jpg", 8))
    text = page_of(folder, "a b#1.png", markup=points)
    kinds = re.findall(r'src="data:(image/\w+);base64,([\w+/=]+)"', text)
    assert [kind for kind, _ in kinds] == ["image/jpeg", "image/png"]
    assert base64.b64decode(kinds[1][1]) == (folder / "a b#1.png").read_bytes()
    assert text.replace(kinds[0][1], "").replace(kinds[1][1], "").count("<script") == 2


@pytest.mark.parametrize("name", ["../secret.png", "link.png", "notes.txt", "missing.png", "/etc/passwd", "a\0.png"])
def test_files_outside_of_the_folder_missing_ones_and_others_than_images_stay_names(folder, name):
    assert "data:" not in page_of(folder, name)


def test_an_image_outside_by_its_absolute_name_stays_a_name(folder):
    assert "data:" not in page_of(folder, str(folder.parent / "secret.png"))
