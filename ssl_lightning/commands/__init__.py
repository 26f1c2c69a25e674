"""Subcommands of this package, one module each with a function `main`; `cli.subcommands` is the table of all."""
