"""Which modules a configuration or a checkpoint may name: both are untrusted input."""

import os
import re
import sys
from typing import NoReturn

from jsonargparse import set_parsing_settings

PACKAGES = ("ssl_lightning", "torch", "torchvision", "timm", "lightning")
VARIABLE = "SSL_LIGHTNING_PLUGINS"
_REFUSED = re.compile(r"Importing '([^']*)' is not allowed")
_ADVICE = re.compile(r"\s*Add the import path to import_path_allowlist in set_parsing_settings to allow it\.")
"""What the parser says to programmers, who could not follow it either: the list is made anew for every command."""


def allowed_packages() -> tuple[str, ...]:
    """Ours, the libraries we stand on, and what the environment adds; no file can widen this list."""
    plugins = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    return (*PACKAGES, *(name for name in plugins if name))


def restrict_imports() -> None:
    """Let the parser import from `allowed_packages()` and from nowhere else, in this whole process."""
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=list(allowed_packages()),
        instantiate_subclass_spec_in_any=False,
        validate_subclass_spec_in_any=True,
    )


def explain_refusal(error: str) -> str:
    """How to allow a package of one's own where that is what the parser refused, before its own words."""
    refused = _REFUSED.search(error)
    if refused is None:
        return error
    return (
        f"found {refused[1]}, which may not be imported; name a package of your own in the environment variable "
        f"{VARIABLE} to allow it ({_ADVICE.sub('', error)})"
    )


def refuse(error: str) -> NoReturn:
    """What every parser of ours does with a mistake: one line, what was found and what was expected, and code 2."""
    sys.stderr.write(f"ssl-lightning: error: {' '.join(explain_refusal(error).split())}\n")
    sys.exit(2)
