"""Import policy: which names a configuration or a checkpoint may hold. Both are untrusted input.

Two gates, both before anything is made. The parser imports nothing that is not on a list of names (`restrict_imports`).
What it has parsed is then held against the declared types of its places (`places.check_arguments`).
"""

import re
import sys
from typing import NoReturn

import torch
from jsonargparse import set_parsing_settings
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser  # turns reading configurations from addresses on

from ssl_lightning.checkpoints.kinds import (
    KINDS,
    OUR_MODULES,
    OURS,
    VARIABLE,
    library_classes,
    plugin_packages,
    rejection,
)
from ssl_lightning.errors import one_line
from ssl_lightning.safe_yaml import bound_parser

_REJECTED = re.compile(r"Importing '([^']*)' is not allowed")
LIBRARIES = {OURS, *(module.partition(".")[0] for kind in KINDS for module in kind.modules)}
"""Packages that have admitted classes, and much else."""


def admitted_names() -> list[str]:
    """What the parser may import: classes of libraries one by one, packages of ours and plugins as a whole."""
    return [*library_classes(), *(f"{OURS}.{module}" for module in OUR_MODULES), *plugin_packages()]


def restrict_imports() -> None:
    """Let the parser import `admitted_names()` and nothing else, and read local files alone, in this whole process."""
    assert LightningArgumentParser  # imported above for what its module sets, before it is set here
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=admitted_names(),
        instantiate_subclass_spec_in_any=False,
        validate_subclass_spec_in_any=True,
        config_read_mode_urls_enabled=False,
        config_read_mode_fsspec_enabled=False,
    )
    register_type(torch.device, fail_already_registered=False)  # else a default of Lightning's is dumped as its error
    bound_parser()


def explain_rejection(error: str) -> str:
    """What to do about a name that the parser may not import, before its own words."""
    rejected = _REJECTED.search(error)
    if rejected is None:
        return error
    name = rejected[1]
    reason = rejection(name)
    if reason is not None:
        return f"found {name}, which is not admitted: {reason}"
    if name.partition(".")[0] in LIBRARIES:
        return f"found {name}; expected a public class that fits there: no file may name functions or other parts of it"
    return (
        f"found {name}, which may not be imported; name a package of your own in the environment variable {VARIABLE} "
        "to allow it"
    )


def reject(error: str) -> NoReturn:
    """What every parser of ours does with a mistake: one line, what was found and what was expected, and code 2."""
    sys.stderr.write(f"ssl-lightning: error: {one_line(explain_rejection(error))}\n")
    sys.exit(2)
