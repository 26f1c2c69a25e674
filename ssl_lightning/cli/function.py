"""Subcommands that are one function: its arguments are the options."""

from importlib import import_module
from pathlib import Path

from ssl_lightning.checkpoints.allowlist import restrict_imports
from ssl_lightning.checkpoints.places import check_call, signature_of
from ssl_lightning.cli.class_changes import start_from_defaults
from ssl_lightning.cli.explanations import Call
from ssl_lightning.cli.instantiate import Instantiation
from ssl_lightning.cli.parser import OneLineParser
from ssl_lightning.cli.subcommands import Subcommand
from ssl_lightning.runs.artifacts import fetch_all


def call(subcommand: Subcommand, options: list[str]) -> None:
    """Carry out a subcommand with its options; classes that they name come through the import policy.

    Args:
        subcommand: One of ours.
        options: As typed.
    """
    restrict_imports()
    start_from_defaults()
    main = import_module(subcommand.module).main
    OneLineParser.called = Call((subcommand.name, *options), signature_of(main)[0])
    described = main.__doc__.splitlines()[0]
    # the start of an option's name is a misspelled option
    parser = OneLineParser(prog=f"ssl-lightning {subcommand.name}", description=described, allow_abbrev=False)
    parser.add_function_arguments(main, as_positional=True)
    parsed = parser.parse_args(options)
    classes = check_call(main, parsed)
    parsed = fetch_all(parsed, Path("runs") / ".artifacts")
    main(**Instantiation(parser, classes)(parsed).as_dict())
