"""The page is one well-formed document, shows its input, and runs no script that a name contains."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from ssl_lightning.report import Figure, Section, write_page

VOID = {"meta", "img"}


class TaskDataset(HTMLParser):
    """Reads the page as a browser would, and rejects tags that are not closed in their order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.images, self.text, self.doctypes = [], [], [], {}, []

    def handle_decl(self, decl):
        self.doctypes.append(decl)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text.setdefault(self.open[-1], []).append(data)


def read(path):
    reader = TaskDataset()
    text = path.read_bytes().decode("utf-8")
    reader.feed(text)
    reader.close()
    assert text.startswith("<!doctype html>")
    assert reader.open == []
    return reader


NASTY = "a <script>alert(1)</script> & \"b\" 'c' → ü"


@pytest.fixture
def page(tmp_path):
    sections = [
        Section(NASTY, NASTY),
        Section("Images", "", [Figure("a.png", NASTY), Figure('b"><script>.png', "two"), Figure("c#1 50%.png", "3")]),
        Section("One", "text", [Figure("sub/d.png", "four")]),
    ]
    write_page(tmp_path / "report" / "index.html", NASTY, sections)
    return read(tmp_path / "report" / "index.html")


def test_the_page_is_one_document_with_the_parts_that_html_asks_for(page):
    assert page.doctypes == ["doctype html"]
    for tag in ("html", "head", "title", "style", "body", "h1"):
        assert page.tags.count(tag) == 1
    assert page.tags[:5] == ["html", "head", "meta", "meta", "title"]
    assert page.tags.count("h2") == 3


def test_whatever_a_name_holds_is_text_and_never_markup(page):
    assert "script" not in page.tags
    assert page.text["title"] == page.text["h1"] == [NASTY]
    assert page.text["h2"] == [NASTY, "Images", "One"]
    assert page.text["pre"] == [NASTY, "text"]


def test_all_images_are_named_relative_to_the_page_each_with_its_caption(page):
    assert [unquote(image["src"]) for image in page.images] == ["a.png", 'b"><script>.png', "c#1 50%.png", "sub/d.png"]
    assert not any(mark in image["src"] for image in page.images for mark in '#?<"')
    assert [image["alt"] for image in page.images] == page.text["figcaption"] == [NASTY, "two", "3", "four"]
    assert page.tags.count("figure") == 4


def test_nothing_on_the_page_comes_from_elsewhere(tmp_path):
    write_page(tmp_path / "index.html", "run", [Section("a", "b", [Figure("c.png", "d")])])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not any(word in text for word in ("http", "//", "url(", "@import"))


def test_a_page_without_sections_is_a_page(tmp_path):
    write_page(tmp_path / "index.html", "run", [])
    assert read(tmp_path / "index.html").text["h1"] == ["run"]


def test_a_name_that_is_no_text_is_shown_and_costs_no_page(tmp_path):
    write_page(tmp_path / "index.html", "run", [Section("Images", "", [Figure("a.png", "50 % dog\udcfe")])])
    assert read(tmp_path / "index.html").text["figcaption"] == [r"50 % dog\udcfe"]


def test_the_page_is_utf8_whatever_the_locale(tmp_path):
    code = f"""
from pathlib import Path
from ssl_lightning.report import write_page
write_page(Path({str(tmp_path)!r}, "index.html"), "91 \\u00b12 \\u2192", [])
"""
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | plain)
    assert read(tmp_path / "index.html").text["title"] == ["91 ±2 →"]


def test_a_table_has_a_head_and_numbers_to_the_right(tmp_path):
    table = [("phase", "seconds"), ("a < b", "1,234"), ("c", "5 ±1")]
    write_page(tmp_path / "index.html", "run", [Section("Time", table=table, note="read & understood")])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '<tr><th>phase</th><th class="number">seconds</th></tr>' in text
    assert '<tr><td>a &lt; b</td><td class="number">1,234</td></tr>' in text
    assert '<p class="note">read &amp; understood</p>' in text


def test_a_head_of_empty_cells_is_left_out(tmp_path):
    write_page(tmp_path / "index.html", "run", [Section("Run", table=[("", ""), ("seed", "3")])])
    assert "<th" not in (tmp_path / "index.html").read_text(encoding="utf-8").split("</style>")[1]


def test_a_folded_section_opens_on_a_click(tmp_path):
    write_page(tmp_path / "index.html", "run", [Section("All", "text", is_folded=True)])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<details><summary>All</summary><pre>text</pre>" in text


def test_the_page_fits_phones_and_dark_mode(tmp_path):
    write_page(tmp_path / "index.html", "run", [])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'name="viewport"' in text
    assert "prefers-color-scheme:dark" in text
