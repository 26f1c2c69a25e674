"""Fault injection on demand: `make soak`, or `python -m tests.soak --help`; docs/reliability.md has the results."""
