"""The map shows every image once without a script, holds no markup from names, and its script selects images."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssl_lightning.report.hover_map import SIZE, hover_map
from ssl_lightning.report.page import Section, write_page
from ssl_lightning.report.thumbnails import Thumbnails, one_image, shrunk

NASTY = "</script><script>alert(1)</script> <!-- \"b\" 'c' & \udcfe \u2028"
CLASSES = torch.tensor([0, 0, 1, -1])
POINTS = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0], [4.0, 2.0]])
NEIGHBORS = torch.tensor([[1, 2], [0, 3], [0, 1], [2, 1]])
THUMBNAILS = Thumbnails("thumbnails.jpg", 8)


class Scripts(HTMLParser):
    """The scripts of a fragment, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.tags = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def of(text):
    """The data of a map."""
    return json.loads(Scripts(text).scripts[0])


def places(text):
    """The static points of each map by color."""
    maps = re.findall(r"<svg.*?</svg>", text)
    return [
        {
            color: [tuple(map(int, point)) for point in re.findall(r"M(\d+) (\d+)h0", path)]
            for color, path in re.findall(r'<path stroke="(.*?)" d="(.*?)"/>', each)
        }
        for each in maps
    ]


def test_every_image_is_a_point_of_the_color_of_its_class():
    text = hover_map({"before": POINTS, "after": 3 - 5 * POINTS}, THUMBNAILS, CLASSES, ["cat", "dog"])
    before, after = places(text)
    assert list(before) == list(after) == ["#9aa4ae", "#1f77b4", "#ff7f0e"]
    assert before["#1f77b4"] == [(40, 270), (960, 270)]  # one scale for both axes
    assert before["#9aa4ae"] == [(960, 730)]
    assert after["#1f77b4"] == [(960, 730), (40, 730)]
    assert of(text)["points"][0] == [[40, 270], [960, 270], [40, 730], [960, 730]]
    assert re.findall(r"<li.*?>(.*?)</li>", text) == ["cat", "dog"]


def test_the_script_has_neighbors_labels_and_names():
    text = hover_map({"before": POINTS}, THUMBNAILS, CLASSES, ["cat", "dog"], {"before": NEIGHBORS}, list("abcd"))
    data = of(text)
    assert data["neighbors"] == [NEIGHBORS.tolist()]
    assert data["labels"] == CLASSES.tolist()
    assert (data["names"], data["files"], data["titles"]) == (["cat", "dog"], list("abcd"), ["before"])
    assert data["thumbnails"] == {"side": 8, "columns": 40}


def test_names_are_data_and_never_markup():
    text = hover_map({NASTY: POINTS}, Thumbnails(NASTY, 8), CLASSES, [NASTY, "dog"], None, [NASTY] * 4)
    found = Scripts(text)
    assert found.tags.count("script") == 2
    assert found.tags.count("img") == 1
    assert of(text)["names"] == [NASTY, "dog"]
    assert of(text)["files"] == [NASTY] * 4
    assert "alert(1)</script>" not in text
    assert html.escape(NASTY) in text


@pytest.mark.parametrize("points", [torch.zeros(4, 2), torch.full((4, 2), torch.nan), torch.full((4, 2), 1e30)])
def test_collapsed_and_undefined_points_lie_at_the_center(points):
    assert of(hover_map({"a": points}, THUMBNAILS))["points"] == [[[SIZE // 2, SIZE // 2]] * 4]


def test_images_without_classes_have_one_color_and_no_legend():
    text = hover_map({"a": POINTS}, THUMBNAILS)
    assert list(places(text)[0]) == ["#9aa4ae"]
    assert "<ul>" not in text


def test_many_classes_have_different_colors_and_no_legend():
    text = hover_map({"a": torch.rand(100, 2)}, THUMBNAILS, torch.arange(100))
    assert len(places(text)[0]) == 100
    assert "<ul>" not in text


@pytest.mark.parametrize("points", [{}, {"a": POINTS, "b": POINTS[:3]}, {"a": POINTS[:0]}])
def test_maps_of_different_images_are_rejected(points):
    with pytest.raises(ValueError, match="expected the same number"):
        hover_map(points, THUMBNAILS, None)


def test_nothing_is_read_from_elsewhere():
    text = hover_map({"a": POINTS}, THUMBNAILS).replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not any(word in text for word in ("http", "url(", "@import", "fetch(", "innerHTML", "eval("))


def test_thumbnails_lie_in_rows_and_have_sides_of_whole_blocks():
    images = torch.rand(41, 3, 20, 20)
    small = shrunk(images)
    assert small.shape == (41, 3, 16, 16)
    sheet = one_image(small)
    assert sheet.size == (40 * 16, 32)
    assert sheet.getpixel((2 * 16 + 3, 5)) == tuple(small[2, :, 5, 3].tolist())
    assert sheet.getpixel((3, 16 + 5)) == tuple(small[40, :, 5, 3].tolist())
    assert shrunk(torch.rand(1, 3, 224, 224)).shape == (1, 3, 48, 48)
    assert shrunk(torch.rand(1, 3, 3, 3)).shape == (1, 3, 8, 8)


def test_thumbnails_of_images_of_any_size_are_in_the_page_itself():
    images = [torch.full((3, 30 + row, 60), 6 * row, dtype=torch.uint8) for row in range(41)]
    thumbnails = Thumbnails.of(images, side=16)
    start, content = thumbnails.source.split(",")
    assert (start, thumbnails.side, thumbnails.columns) == ("data:image/jpeg;base64", 16, 40)
    with Image.open(io.BytesIO(base64.b64decode(content))) as sheet:
        assert sheet.size == (40 * 16, 32)
        assert abs(sheet.getpixel((39 * 16 + 8, 8))[0] - 6 * 39) < 5
    assert Thumbnails.of(images[:3]).columns == 3
    assert thumbnails.source in hover_map({"a": torch.rand(41, 2)}, thumbnails)


EVENTS = """<script>addEventListener('load', () => {
const svg = document.querySelectorAll('.hover-map svg')[1], panel = document.querySelector('.hover-map-panel');
const found = [];
const note = () => found.push({
  texts: [...panel.querySelectorAll('span, p')].map((each) => each.textContent),
  others: panel.querySelectorAll('.other').length, marks: document.querySelectorAll('.mark').length});
const point = (kind, x, y) => {
  const area = svg.getBoundingClientRect();
  const at = {clientX: area.left + x * area.width, clientY: area.top + y * area.height};
  svg.dispatchEvent(new PointerEvent(kind, at));
  note();
};
note();
point('pointermove', 0.5, 0.5);
point('pointermove', 0.95, 0.28);
point('pointerdown', 0.05, 0.74);
svg.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
note();
const results = document.createElement('pre');
results.id = 'results';
results.textContent = JSON.stringify(found);
document.body.append(results);
});</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_the_image_its_class_and_its_neighbors(tmp_path):
    one_image(shrunk(torch.rand(4, 3, 8, 8))).save(tmp_path / "thumbnails.jpg")
    neighbors = {"before": NEIGHBORS, "after": NEIGHBORS}
    paths = [f"a&b.png {row}" for row in range(4)]
    text = hover_map({"before": POINTS, "after": POINTS}, THUMBNAILS, CLASSES, ["cat", "dog"], neighbors, paths)
    write_page(tmp_path / "index.html", "map", [Section("Map", markup=text + EVENTS)])
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--dump-dom", Path(tmp_path / "index.html").as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(html.unescape(re.search(r'<pre id="results">(.*?)</pre>', page, re.DOTALL)[1]))
    hint, nowhere, pointer, tap, key = found
    assert hint["texts"] == ["Point at an image of the map, tap it, or use the arrow keys."]
    assert nowhere == hint
    assert pointer["texts"] == ["cat", "a&b.png 1", "nearest, before", "cat", "", "nearest, after", "cat", ""]
    assert (pointer["others"], pointer["marks"]) == (2, 6)
    assert tap["texts"] == ["dog", "a&b.png 2", "nearest, before", "cat", "cat", "nearest, after", "cat", "cat"]
    assert tap["others"] == 4
    assert key["texts"][:2] == ["", "a&b.png 3"]
