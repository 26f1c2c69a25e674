"""Every subcommand but the four of Lightning, one file each."""

import json
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser

from ssl_lightning.checkpoints.allowlist import reject, restrict_imports
from ssl_lightning.checkpoints.places import check_call
from ssl_lightning.runs.artifacts import fetch_all

MODULES = {
    "budget": "ssl_lightning.commands.budget",
    "check-setup": "ssl_lightning.commands.check_setup",
    "choose-k": "ssl_lightning.commands.choose_k",
    "clusters": "ssl_lightning.commands.clusters",
    "demo": "ssl_lightning.commands.demo",
    "embed": "ssl_lightning.commands.embed",
    "experts": "ssl_lightning.commands.experts",
}
"""Subcommand to module; each module has a function `main` whose arguments are the options."""
SEVERAL = {"budget"}
"""Verbs of several folders one after the other, as a shell writes them; `main` gets them as a list."""


class OneLineParser(ArgumentParser):
    """A parser whose errors are one line: what was found, what was expected."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say it and leave with exit code 2."""
        reject(str(message))


def run_subcommand(arguments: list[str]) -> None:
    """Carry out a subcommand with its options; classes that they name come through the import allowlist."""
    subcommand, *options = arguments
    if subcommand in SEVERAL:
        folders = list(takewhile(lambda option: not option.startswith("-"), options))
        options = ([json.dumps(folders)] if folders else []) + options[len(folders) :]
    restrict_imports()
    main = import_module(MODULES[subcommand]).main
    parser = OneLineParser(prog=f"ssl-lightning {subcommand}", description=main.__doc__.splitlines()[0])
    parser.add_function_arguments(main, as_positional=True)
    parsed = parser.parse_args(options)
    check_call(main, parsed)
    parsed = fetch_all(parsed, Path("runs") / ".artifacts")
    main(**parser.instantiate(parsed).as_dict())
