"""The command line: its subcommands, its parser, and how a run starts, resumes and ends.

Nothing is imported here: `ssl-lightning --help` reads `subcommands` and must not wait for torch.
"""
