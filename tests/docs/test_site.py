"""The site is built strict, as `make docs` does, and needs no network."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.docs.pages import ROOT

NEEDED = ("sphinx", "myst_parser", "furo")


@pytest.mark.slow
@pytest.mark.skipif(
    any(find_spec(name) is None for name in NEEDED), reason="needs the extra `docs`: pip install 'ssl-lightning[docs]'"
)
def test_the_site_is_built_without_a_warning_and_loads_nothing(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path / "html")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 40
    loaded = r'<(?:script|img|iframe)[^>]*src="(https?:)?//|<link[^>]*rel="stylesheet"[^>]*href="(https?:)?//'
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []
    assert "<math" in (tmp_path / "html" / "methods" / "swav.html").read_text()
