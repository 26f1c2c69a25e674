"""Every verb but the four of Lightning, one file each."""

from importlib import import_module

from jsonargparse import ArgumentParser

MODULES = {"check-setup": "ssl_lightning.commands.check_setup", "demo": "ssl_lightning.commands.demo"}
"""Verb to module; each module has a function `main` whose arguments are the options."""


def run_verb(arguments: list[str]) -> None:
    """Carry out a verb with its options."""
    verb, *options = arguments
    main = import_module(MODULES[verb]).main
    parser = ArgumentParser(prog=f"ssl-lightning {verb}", description=main.__doc__.splitlines()[0])
    parser.add_function_arguments(main)
    main(**parser.parse_args(options).as_dict())
