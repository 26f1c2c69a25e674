"""Configuration of the documentation: `make docs`, or `sphinx-build -W --keep-going -b html docs docs/_build/html`.

The site works offline: the theme contains its fonts and scripts, formulas are MathML, and references do not lead to
the pages of other projects.
"""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

sys.path.insert(0, str(Path(__file__).parents[1]))

from ssl_lightning import __version__

project = "ssl_lightning"
author = "The ssl_lightning authors"
copyright = "The ssl_lightning authors, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
source_suffix = {".md": "markdown"}
root_doc = "index"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"ssl_lightning {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False
pygments_style = "friendly"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = True
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
default_role = "literal"
add_module_names = False

LITERAL = re.compile(r"(``?[^`]+``?)")


HIDDEN_COLON = "\ue000"
ENUMERATOR = re.compile(r"^(\s*)([A-Za-z]|\d+)\. ")


def show_constructor(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, return_annotation: str | None
) -> tuple[str, None] | None:
    """The signature of a method is that of its constructor: its `__new__`, which notes the arguments, takes any."""
    if what != "class" or "*args" not in (signature or ""):
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    return f"({', '.join(shown(parameter) for parameter in parameters)})", None


def shown(parameter: inspect.Parameter) -> str:
    """An argument with its default, as a reader would write it."""
    default = parameter.default
    if default is inspect.Parameter.empty:
        return str(parameter.replace(annotation=inspect.Parameter.empty))
    if inspect.isfunction(default):
        return f"{parameter.name}=..."
    return f"{parameter.name}={default.__name__ if inspect.isclass(default) else repr(default)}"


def hide_colons(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon for the type of a property or attribute; here it is a sentence."""
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", HIDDEN_COLON) for line in lines]


def escape_markup(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with names in backticks; `|x|`, `a*b` and `name_` in them are no markup."""
    for number, line in enumerate(line.replace(HIDDEN_COLON, ":") for line in list(lines)):
        if line.lstrip().startswith((":", "..")):
            head, colon, rest = line.partition(": ")
            lines[number] = f"{head}{colon}{escaped(rest)}"
        else:
            lines[number] = escaped(line)


def escaped(text: str) -> str:
    """Text with the signs escaped that reStructuredText would read as markup, outside of backticks."""
    text = ENUMERATOR.sub(r"\1\2\\. ", text)  # "K. The paper's 3000" begins no list
    parts = LITERAL.split(text)
    return "".join(part if part.startswith("`") else re.sub(r"([|*]|_\b)", r"\\\1", part) for part in parts)


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write an inline formula as MathML."""
    self.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def visit_displayed_math(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own as MathML."""
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Add the renderer of formulas and the reading of docstrings."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displayed_math, None))
    app.connect("autodoc-process-signature", show_constructor)
    app.connect("autodoc-process-docstring", hide_colons, priority=100)
    app.connect("autodoc-process-docstring", escape_markup, priority=900)
