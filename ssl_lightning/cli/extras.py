"""The command that installs an optional package, for the way in which this package was installed."""

import json
import os
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "ssl-lightning"


def install_command(extra: str) -> str:
    """The command that adds an extra to the installed package.

    Args:
        extra: Such as `tensorboard`.
    """
    source = _source()
    url, folder = str(source.get("url", "")), source.get("dir_info")
    if isinstance(folder, dict):
        editable = ["--editable"] if folder.get("editable") else []
        return shlex.join(["pip", "install", *editable, f"{_folder(url)}[{extra}]"])
    vcs = source.get("vcs_info")
    if isinstance(vcs, dict):
        url = f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}"
    return shlex.join(["pip", "install", f"{NAME}[{extra}] @ {url}" if url else f"{NAME}[{extra}]"])


def _source() -> dict[str, Any]:
    """Where the package was installed from, as pip records it; empty for an index."""
    try:
        found = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _folder(url: str) -> str:
    """The folder of a clone, a dot for the current one."""
    folder = unquote(urlsplit(url).path)
    return "." if os.path.realpath(folder) == str(Path.cwd().resolve()) else folder
