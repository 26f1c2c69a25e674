"""data report as it is typed: what the page has of files, duplicates, clusters and labels; the table for viewers."""

import html
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.data import UncuratedImages
from ssl_lightning.entry import run
from ssl_lightning.report.sprites import PER_FILE
from tests.data.manifest.small_pools import write_folder
from tests.trained_runs import TrainedRuns

HOSTILE = "<script>alert('1')<\\script> \"quoted\" & line\nbreak.png"
NOT_TEXT = b"a caf\xe9 <b>.png"


def smooth(number, size=(64, 48), kind="PNG", **options):
    """A smooth image, another one for each number; those of one tenth have similar colors."""
    rng, tint = np.random.default_rng(number), np.random.default_rng(number // 10).integers(0, 200, 3)
    values = np.clip(rng.integers(0, 56, (5, 5, 3)) + tint, 0, 255).astype(np.uint8)
    image = Image.fromarray(values).resize((60, 44), Image.Resampling.BICUBIC).resize(size)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def pool(tmp_path, monkeypatch, capsys):
    """Thirty images of three colors, copies of three of them, broken files, and files with odd names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ssl-lightning"])
    files = {f"{number // 10}/{number:02}.png": smooth(number) for number in range(30)}
    files |= {"0/same.png": smooth(3), "0/again.png": smooth(3), "1/small.png": smooth(12, (48, 36))}
    files |= {"1/compressed.jpg": smooth(15, kind="JPEG", quality=70), HOSTILE: smooth(30)}
    jpeg = smooth(31, (400, 300), "JPEG", quality=95)
    files |= {f"broken/cut-{n:02}.jpg": jpeg[: len(jpeg) // 2] + bytes([n]) for n in range(26)}
    files |= {"broken/<i>empty.png": b"", "broken/text.jpg": b"no image"}
    write_folder(tmp_path / "images", files)
    (tmp_path / "images" / os.fsdecode(NOT_TEXT)).write_bytes(smooth(32)[:200])
    assert run(["data", "build", "./images", "--out", "pool.parquet", "--workers", "1"]) == 0
    capsys.readouterr()
    return tmp_path


def report(*options, out="page"):
    assert run(["data", "report", "pool.parquet", "--out", out, "--workers", "1", *options]) == 0
    return Page((Path(out) / "index.html").read_text(encoding="utf-8"))


class Page(HTMLParser):
    """Sections of a page with their texts, its images and its scripts."""

    def __init__(self, text):
        super().__init__()
        self.whole, self.sections, self.images, self.tags, self.scripts = text, {}, [], [], []
        self._inside = self._name = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self._inside = tag
        if tag == "h2":
            self._name = attributes.get("id", "")
        if tag == "img":
            self.images.append(attributes)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.sections[self._name] = self.sections.get(self._name, "") + data + "|"

    @property
    def map(self):
        """The data of the map."""
        return json.loads(self.scripts[0])


def test_the_page_counts_files_and_has_the_sections_in_order(pool, capsys):
    page = report()
    assert [name for name in page.sections if name] == [
        *("collection", "sources", "formats", "broken", "duplicates", "map", "tail", "clusters", "outliers")
    ]
    for text in ("64|files|", "35|usable images|", "29|broken, quarantined|", "1|source|", "4|copies|"):
        assert text in page.sections["collection"]
    assert "simple statistics of the pixels" in page.sections["collection"]
    assert "./images/|64|35|" in page.sections["sources"]
    assert "broken: truncated|27|" in page.sections["sources"]
    assert "PNG|34|97.1 %|JPEG|1|2.9 %|" in page.sections["formats"]
    assert page.sections["formats"].count("median") >= 4
    for caption in ("megapixels of an image: median", "kB of an image: median"):  # numbers with their units
        assert caption in page.sections["formats"]
    assert "K = 2" in page.sections["tail"]
    shown = capsys.readouterr().out
    assert "page: page/index.html" in shown
    assert "images for viewers: page/images.parquet" in shown


def test_broken_files_are_shown_by_reason_and_the_others_are_counted(pool):
    page = report()
    text = page.sections["broken"]
    assert "truncated: 27 files" in text
    assert "3 more of this reason are not shown." in text
    assert "empty: 1 file|" in text
    assert "of no format that is read: 1 file|" in text
    assert "<i>empty.png|0 bytes|" in text
    assert "JPEG, RGB, 400 x 300" in text
    assert sum(image["src"].startswith("report-broken-") for image in page.images) == 24
    with Image.open(pool / "page" / "report-broken-0.jpg") as sheet:
        assert sheet.size[0] == 960


def test_duplicates_are_the_groups_of_data_dedup_side_by_side(pool):
    page = report()
    assert run(["data", "dedup", "pool.parquet", "--out", "kept.parquet"]) == 0
    rows = parquet.read_table("kept.parquet").to_pylist()
    names = {row["sample_id"]: row["member"] for row in parquet.read_table("pool.parquet").to_pylist()}
    text = page.sections["duplicates"]
    copies = [row for row in rows if not row["kept"]]
    assert f"3 groups with {len(copies)} copies: 2 of equal bytes, 2 near-equal." in text
    assert text.index("3 images") < text.index("2 images")
    assert all(names[row["sample_id"]] in text for row in copies)
    assert text.count("kept|") == 3


def test_names_from_files_are_text_and_never_markup(pool):
    page = report("--image_bytes")
    assert page.tags.count("script") == 2
    assert HOSTILE.replace("\\", "\\x5c") in page.map["files"]
    assert any("a caf\\xe9 <b>.png" in part for part in page.sections["broken"].split("|"))
    assert "<i>empty" not in page.whole
    assert "alert('1')<" not in page.whole
    assert not re.search(r"(src|href)=\"?(https?:)?//", page.whole)
    assert "http" not in page.whole.replace("http://www.w3.org/2000/svg", "")


def test_every_thumbnail_is_in_a_file_beside_the_page_and_is_the_one_of_its_image(pool):
    page = report()
    data = page.map["thumbnails"]
    assert sorted(data["places"]) == list(range(35))
    assert {image["src"] for image in page.images} == {"report-images-0.jpg", "report-broken-0.jpg"}
    assert all(image["loading"] == "lazy" for image in page.images)
    row = page.map["files"].index("2/25.png")
    place = data["places"][row] % PER_FILE
    with Image.open(pool / "page" / "report-images-0.jpg") as sheet, Image.open(io.BytesIO(smooth(25))) as own:
        left, top = data["side"] * (place % 10), data["side"] * (place // 10)
        height, width = data["shapes"][row]
        assert (height, width) == (72, 96)
        cell = np.asarray(sheet.crop((left, top, left + width, top + height)), dtype=float)
        expected = np.asarray(own.resize((96, 72), Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(cell - expected).mean() < 4


def test_the_table_for_viewers_has_places_clusters_and_rows_of_neighbors(pool):
    report("--image_bytes", "--num_clusters", "3")
    table = parquet.read_table("page/images.parquet")
    rows = table.to_pylist()
    assert len(rows) == 35
    assert {"path", "x", "y", "cluster", "neighbors", "image"} <= set(table.column_names)
    by_name = {os.path.basename(row["path"]): place for place, row in enumerate(rows)}
    near = rows[by_name["03.png"]]["neighbors"]
    assert set(near["ids"][:2]) == {by_name["same.png"], by_name["again.png"]}
    assert near["distances"][:2] == pytest.approx([0, 0], abs=1e-5)
    assert near["distances"] == sorted(near["distances"])
    assert {rows[place]["cluster"] for place in near["ids"][:2]} == {rows[by_name["03.png"]]["cluster"]}
    assert os.path.isfile(rows[by_name["03.png"]]["path"])
    with Image.open(io.BytesIO(rows[by_name["small.png"]]["image"]["bytes"])) as image:
        assert image.size == (96, 72)


def test_labels_are_joined_by_name_or_id_and_agree_with_the_clusters(pool):
    lines = [f"{number // 10}/{number:02}.png,color {number // 10}" for number in range(30)]
    (pool / "labels.csv").write_text("file,kind\n" + "\n".join(lines))
    page = report("--labels", "labels.csv", "--labels_column", "kind", "--num_clusters", "3")
    text = page.sections["labels"]
    assert "30 of 35 images have one" in text
    assert page.map["names"] == ["color 0", "color 1", "color 2"]
    assert float(re.search(r"NMI\|([\d.]+)\|", text)[1]) > 0.9
    assert "color 0|10|" in text
    stems = [f"{number:02},c{number // 10}<b>" for number in range(30)]
    (pool / "stems.csv").write_text("id,label\n" + "\n".join(stems))
    assert report("--labels", "stems.csv").map["names"] == ["c0<b>", "c1<b>", "c2<b>"]
    ids = {row["member"]: row["sample_id"] for row in parquet.read_table("pool.parquet").to_pylist()}
    (pool / "ids.csv").write_text(f"label,sample_id\nyes,{ids['0/00.png']}\nno,{ids['1/small.png']}\n")
    page = report("--labels", "ids.csv")
    assert page.map["labels"][page.map["files"].index("0/00.png")] == page.map["names"].index("yes")
    assert "2 of 35 images have one" in page.sections["labels"]


def test_labels_of_the_manifest_are_used_without_a_file(pool):
    table = parquet.read_table("pool.parquet")
    place = table.column_names.index("label")
    labels = [member[0] if member[0] in "012" else None for member in table["member"].to_pylist()]
    table = table.set_column(place, "label", pa.array(labels)).replace_schema_metadata(None)
    parquet.write_table(table, "pool.parquet")
    page = report()
    assert "Labels are those of the manifest. 34 of 35 images have one." in page.sections["labels"]
    assert page.map["names"] == ["0", "1", "2"]


def test_of_many_images_a_random_sample_is_shown_and_the_number_left_out_is_on_the_page(pool, caplog):
    with caplog.at_level("INFO"):
        page = report("--images", "12")
    assert "showing 12 random images of 35" in caplog.text
    assert "12 random images; 23 are left out" in page.sections["collection"]
    assert len(page.map["files"]) == 12
    assert "3 groups with 4 copies" in page.sections["duplicates"]  # of all images
    assert any(image["src"] == "report-copies-0.jpg" for image in page.images)
    assert "35" in page.sections["collection"]


def test_a_subset_restricts_the_page_to_the_images_that_it_keeps(pool):
    assert run(["data", "dedup", "pool.parquet", "--out", "kept.parquet"]) == 0
    page = report("--subset", "kept.parquet")
    assert "duplicates" not in page.sections
    assert "31 of 35 usable images" in page.sections["collection"]
    assert len(page.map["files"]) == 31


def test_features_of_a_file_replace_the_statistics(pool):
    data = UncuratedImages(path="./pool.parquet").training
    groups = torch.arange(35) % 2
    features = torch.nn.functional.one_hot(groups, 4).float() + 0.01 * torch.rand(35, 4)
    metadata = {"data": data.fingerprint, "layer": "backbone"}
    FeatureFile(features[:-1], torch.arange(34), torch.full((34,), -1), metadata).save("features.safetensors")
    page = report("--features", "features.safetensors", "--num_clusters", "2")
    assert "features of features.safetensors (layer backbone)" in page.sections["collection"]
    assert "1 images without features" in page.sections["collection"]
    clusters = np.array(parquet.read_table("page/images.parquet")["cluster"].to_pylist())
    assert len(set(clusters[::2])) == len(set(clusters[1::2])) == 1
    assert clusters[0] != clusters[1]
    FeatureFile(features, torch.arange(35), torch.full((35,), -1), {"data": "other"}).save("other.safetensors")
    assert run(["data", "report", "pool.parquet", "--out", "page", "--features", "other.safetensors"]) == 65


def test_a_checkpoint_embeds_the_images_of_the_manifest(pool, tmp_path_factory):
    runs = TrainedRuns(tmp_path_factory.mktemp("runs"))
    page = report("--checkpoint", runs.checkpoint("simclr"))
    assert "network (last.ckpt), compared by cosine" in page.sections["collection"]
    assert len(page.map["files"]) == 35


def test_few_images_give_a_page_without_a_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images", {f"{number}.png": smooth(number) for number in range(2)})
    assert run(["data", "build", "./images", "--out", "pool.parquet", "--workers", "1"]) == 0
    page = report()
    assert list(page.sections)[-1] == "formats"
    assert not (tmp_path / "page" / "images.parquet").exists()


def test_two_processes_give_the_files_of_one(pool):
    report(out="one")
    assert run(["data", "report", "pool.parquet", "--out", "two", "--workers", "2"]) == 0
    names = sorted(path.name for path in (pool / "one").iterdir())
    assert names == sorted(path.name for path in (pool / "two").iterdir())
    for name in names:
        assert (pool / "one" / name).read_bytes() == (pool / "two" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "a", "--features", "b"], "expected one"),
        (["--images", "0"], "images=0"),
        (["--num_clusters", "-1"], "num_clusters=-1"),
        (["--num_clusters", "99"], "num_clusters=99 for 35 images"),
        (["--checkpoint", "nowhere"], "no checkpoint nowhere"),
        (["--labels", "labels.csv"], "no column 'label' in labels.csv, only id, kind"),
        (["--labels", "labels.csv", "--labels_column", "kind"], "found no image of the manifest in the column 'id'"),
        (["--labels", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_what_does_not_fit_is_one_line(pool, options, message, capsys):
    (pool / "labels.csv").write_text("id,kind\nother.png,cat\n")
    assert run(["data", "report", "pool.parquet", "--out", "page", "--workers", "1", *options]) in (64, 65)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if message in line]
    assert "; " in line


def test_a_page_takes_the_place_of_an_earlier_one_and_of_no_other_file(pool):
    report()
    (pool / "page" / "images-7.jpg").write_bytes(b"of the user")
    (pool / "page" / "report-images-new.jpg").write_bytes(b"of the user")
    (pool / "page" / "report-images-7.jpg").write_bytes(b"of an earlier page")
    report()
    assert not (pool / "page" / "report-images-7.jpg").exists()
    assert (pool / "page" / "images-7.jpg").exists()
    assert (pool / "page" / "report-images-new.jpg").exists()


EVENTS = """<script>addEventListener('load', () => {
const panel = document.querySelector('.hover-map-panel'), form = document.querySelector('.hover-map-search');
const texts = () => [...panel.querySelectorAll(':scope > p')].slice(0, 2).map((each) => each.textContent);
const found = [texts()];
const find = (text) => { form.querySelector('input').value = text; form.requestSubmit(); found.push(texts()); };
find('2/25');
find('same.png');
const data = JSON.parse(document.querySelector('.hover-map script').textContent);
find(/\\d+/.exec(data.details[9])[0]);
found.push(data.files[9]);
find('same.png');
panel.querySelectorAll('.near')[0].click();
found.push(texts());
const thumb = [...document.querySelectorAll('#clusters ~ .cards .thumb')].pop();
thumb.click();
found.push([...texts(), thumb.title]);
find('nothing of this name');
found.push([form.querySelector('output').textContent]);
const results = document.createElement('pre');
results.id = 'results';
results.textContent = JSON.stringify(found);
document.body.append(results);
});</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_finds_images_and_walks_from_neighbor_to_neighbor(pool):
    page = report()
    path = pool / "page" / "index.html"
    path.write_text(page.whole.replace("</body>", EVENTS + "</body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={pool / 'profile'}"]
    shown = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search(r'<pre id="results">(.*?)</pre>', shown.stdout, re.DOTALL)[1]))
    first, searched, copy, by_id, expected, _, neighbor, clicked, unchanged, output = found
    assert first[1].startswith("id ")
    assert searched[0] == "2/25.png"
    assert copy[0] == "0/same.png"
    assert by_id[0] == expected
    assert neighbor[0] in ("0/03.png", "0/again.png")
    assert clicked[0] == clicked.pop()
    assert unchanged == clicked
    assert output == ["none"]


def test_images_that_are_gone_since_the_build_are_named(pool, caplog, monkeypatch):
    monkeypatch.setattr("ssl_lightning.data.manifest.images._check_content", lambda *_: None)
    member = next(row["member"] for row in parquet.read_table("pool.parquet").to_pylist() if row["status"] == "ok")
    (pool / "images" / member).unlink()
    page = report()
    assert "1 of 35 images cannot be read any more; the first is" in caplog.text
    assert f"{member}: see `ssl-lightning data check pool.parquet`" in caplog.text
    assert "1 images without features" in page.sections["collection"]
