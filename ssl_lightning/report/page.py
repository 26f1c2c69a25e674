"""A single HTML page of tables, curves and images that opens from disk without a server."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.6rem} h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #d0d7de}
pre{background:#f6f8fa;padding:1rem;overflow-x:auto;font-size:13px}
.clusters{display:grid;grid-template-columns:repeat(auto-fill,minmax(22rem,1fr));gap:1rem}
figure{margin:0;padding:.5rem;border:1px solid #d0d7de;border-radius:6px}
figcaption{font-size:13px;color:#57606a} img{max-width:100%;image-rendering:auto}
"""


@dataclass(frozen=True)
class Figure:
    """An image file next to the page, and its caption."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with preformatted text, images, or both."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page; images are referenced relative to it."""
    body = "\n".join(_section(section) for section in sections)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # UTF-8, as declared in its head, for any locale; names of folders may contain bytes that are not text
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _section(section: Section) -> str:
    text = f"<pre>{html.escape(section.text)}</pre>" if section.text else ""
    figures = "\n".join(_figure(figure) for figure in section.figures)
    kind = "clusters" if len(section.figures) > 1 else "single"
    return f'<h2>{html.escape(section.title)}</h2>{text}<div class="{kind}">{figures}</div>'


def _figure(figure: Figure) -> str:
    caption = html.escape(figure.caption)
    source = html.escape(quote(figure.file))  # a name may contain characters that are special in URLs
    return f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
