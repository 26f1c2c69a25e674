"""Validate the options of the staged targets of the Makefile: DATA, SCALE, K and SEED.

The Makefile runs this file as a script before the first stage, so it imports the standard library alone.
"""

import sys
from pathlib import Path

CONFIGS = Path("configs")
LARGEST_SEED = 2**32 - 1


def problem(options: dict[str, str], configs: Path = CONFIGS) -> str:
    """The first option that no stage can use, in one line; empty if all are valid.

    Args:
        options: `data` and `scale` (stems of files in `configs`, an empty scale is none), `k` and `seed`.
        configs: The folder of configurations.
    """
    for name in ("data", "scale"):
        stems = sorted(path.stem for path in (configs / name).glob("*.yaml"))
        if options[name] not in stems and (name == "data" or options[name]):
            known = ", ".join(stems)
            return f"found {name.upper()}={options[name]}; expected the name of a file in {configs / name}: {known}"
    for name, lowest, highest in (("k", 2, None), ("seed", 0, LARGEST_SEED)):
        text = options[name]
        is_number = text.isascii() and text.isdigit()
        if not is_number or int(text) < lowest or (highest is not None and int(text) > highest):
            expected = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"
            return f"found {name.upper()}={text}; expected a whole number {expected}"
    return ""


def main(arguments: list[str]) -> None:
    """Print the first problem of `name=value` arguments, or nothing."""
    print(problem(dict(argument.split("=", 1) for argument in arguments)))


if __name__ == "__main__":
    main(sys.argv[1:])
