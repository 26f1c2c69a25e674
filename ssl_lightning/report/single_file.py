"""A page and its images in one file, which can be sent or attached."""

import html
import mimetypes
import re
from base64 import b64encode
from pathlib import Path
from urllib.parse import unquote

_SOURCE = re.compile(r'(<img [^>]*?src=")([^"]+)(")')
IMAGES = {"image/png", "image/jpeg", "image/webp"}


def single_file(page: Path) -> str:
    """The text of a page with every image in place of its name.

    Images that are missing, and names that lead out of the folder of the page, stay as they are: a page may come from
    other people.

    Args:
        page: The HTML file.

    Raises:
        OSError: If it cannot be read.
    """
    folder = page.parent.resolve()
    text = page.read_text(encoding="utf-8", errors="replace")
    return _SOURCE.sub(lambda found: f"{found[1]}{_inlined(found[2], folder)}{found[3]}", text)


def _inlined(source: str, folder: Path) -> str:
    """A data URI for the name of an image of the folder; any other text unchanged."""
    name = unquote(html.unescape(source))
    kind = mimetypes.guess_type(name)[0]
    try:
        path = (folder / name).resolve()
        is_image = kind in IMAGES and path.is_relative_to(folder) and path.is_file()
        return f"data:{kind};base64,{b64encode(path.read_bytes()).decode()}" if is_image else source
    except (OSError, ValueError):  # of a name that no file can have
        return source
