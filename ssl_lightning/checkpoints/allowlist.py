"""Import policy: the names that a configuration or a checkpoint may contain. Both are untrusted input.

There are two checks before any object is created. The parser imports only names on a list (`restrict_imports`). Parsed
values are then compared with the declared types of their places (`places.check_arguments`).
"""

import re

import torch
from jsonargparse import set_parsing_settings
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser  # enables reading configurations from addresses

from ssl_lightning.checkpoints.kinds import (
    KINDS,
    OUR_MODULES,
    OURS,
    VARIABLE,
    check_plugins,
    library_classes,
    plugin_packages,
    rejection,
)
from ssl_lightning.safe_yaml import bound_parser

_REJECTED = re.compile(r"Importing '([^']*)' is not allowed")
LIBRARIES = {OURS, *(module.partition(".")[0] for kind in KINDS for module in kind.modules)}
"""Packages with admitted classes."""


def admitted_names() -> list[str]:
    """Names that the parser may import: single classes of libraries, whole packages of this project and of plugins."""
    return [*library_classes(), *(f"{OURS}.{module}" for module in OUR_MODULES), *plugin_packages()]


def restrict_imports() -> None:
    """Restrict the parser of this process to imports of `admitted_names()` and to local files.

    Raises:
        UsageError: The environment variable of plugins names a package that is not there.
    """
    check_plugins()
    assert LightningArgumentParser  # its module must be imported before the settings below
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=admitted_names(),
        instantiate_subclass_spec_in_any=False,
        validate_subclass_spec_in_any=True,
        config_read_mode_urls_enabled=False,
        config_read_mode_fsspec_enabled=False,
    )
    register_type(torch.device, fail_already_registered=False)  # else a default value of Lightning cannot be serialized
    bound_parser()


def explain_rejection(error: str) -> str:
    """The error message for a name that the parser may not import."""
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
