"""A single HTML page of tables, curves and images that opens from disk without a server."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

STYLE = """
:root{color-scheme:light dark;--text:#1b1f24;--soft:#57606a;--line:#d0d7de;--box:#f6f8fa;--page:#fff;--image:#fff}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9aa4ae;--line:#3a424b;--box:#171c22;--page:#0e1216}}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:var(--text);
background:var(--page);overflow-wrap:anywhere}
h1{font-size:1.6rem} h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid var(--line)}
p{max-width:46rem} pre{background:var(--box);padding:1rem;overflow-x:auto;font-size:13px;overflow-wrap:normal}
.table{overflow-x:auto} table{border-collapse:collapse;font-size:14px;overflow-wrap:normal}
th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td:nth-child(2):last-child{overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600} td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
.clusters{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(22rem,100%),1fr));gap:1rem}
figure{margin:0;padding:.5rem;border:1px solid var(--line);border-radius:6px}
figcaption,.note{font-size:13px;color:var(--soft)} img{max-width:100%;height:auto;background:var(--image)}
summary{cursor:pointer;font-size:1.15rem;font-weight:700;margin-top:2rem}
@media(max-width:40rem){body{margin:1rem auto} pre{padding:.6rem;font-size:11px} .single figure{overflow-x:auto}
.single img{max-width:none;width:44rem}}
"""


@dataclass(frozen=True)
class Figure:
    """An image file next to the page, and its caption."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with text, a table, images, or several of them.

    Attributes:
        title: The heading.
        text: Preformatted text.
        figures: Images.
        note: A paragraph of prose below the heading.
        table: Rows of cells; the first row is the head, left out if its cells are empty. Columns of numbers are aligned
            to the right.
        is_folded: Show the heading alone until it is clicked.
        markup: HTML, such as that of `hover_map`; text in it is escaped already.
        anchor: Name by which links of the page lead to the heading; empty for none.
    """

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    note: str = ""
    table: Sequence[Sequence[str]] = ()
    is_folded: bool = False
    markup: str = ""
    anchor: str = ""


def write_page(path: Path, title: str, sections: Sequence[Section], lead: str = "") -> None:
    """Write the page; images are referenced relative to it.

    Args:
        path: The file.
        title: Of the page.
        sections: In this order.
        lead: HTML below the title, such as a style and links to sections.
    """
    body = "\n".join(_section(section) for section in sections)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{lead}{body}\n</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # UTF-8, as declared in its head, for any locale; names of folders may contain bytes that are not text
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _section(section: Section) -> str:
    note = f'<p class="note">{html.escape(section.note)}</p>' if section.note else ""
    text = f"<pre>{html.escape(section.text)}</pre>" if section.text else ""
    figures = "\n".join(_figure(figure) for figure in section.figures)
    kind = "clusters" if len(section.figures) > 1 else "single"
    content = f'{note}{section.markup}{_table(section.table)}{text}<div class="{kind}">{figures}</div>'
    title, name = html.escape(section.title), f' id="{html.escape(section.anchor)}"' if section.anchor else ""
    if section.is_folded:
        return f"<details{name}><summary>{title}</summary>{content}</details>"
    return f"<h2{name}>{title}</h2>{content}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    numeric = [all(_is_number(row[column]) for row in rows[1:]) for column in range(len(rows[0]))]
    lines = []
    for place, row in enumerate(rows):
        if not place and not any(row):
            continue
        kind = "td" if place else "th"
        opening = [f'<{kind} class="number">' if is_number else f"<{kind}>" for is_number in numeric]
        cells = (f"{tag}{html.escape(cell)}</{kind}>" for tag, cell in zip(opening, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="table"><table>{"".join(lines)}</table></div>'


def _is_number(cell: str) -> bool:
    return all(sign in "0123456789.,±+-% e" for sign in cell)


def _figure(figure: Figure) -> str:
    caption = html.escape(figure.caption)
    source = html.escape(quote(figure.file))  # a name may contain characters that are special in URLs
    return f'<figure><img loading="lazy" src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
