"""The door: one look at the verb, without torch, so that `ssl-lightning --help` answers at once."""

import sys

from ssl_lightning import __version__

LOOPS = {
    "fit": "train a method; the same command again resumes an unfinished run",
    "validate": "judge a checkpoint (or, without one, an untrained network) on the probe sets",
    "test": "the same as validate",
    "predict": "embed the training pictures, with WriteClusters: write their clusters",
}
VERBS = {
    "demo": "train DeepCluster on real digits, judge it, and write a page to look at",
    "check-setup": "versions, devices and data that this machine has",
}


def overview() -> str:
    """Every verb in a line."""
    lines = [f"  {verb:<12} {text}" for verb, text in (LOOPS | VERBS).items()]
    return "\n".join(
        [
            f"ssl-lightning {__version__}: self-supervised learning by clustering, and from uncurated pictures",
            "",
            "usage: ssl-lightning VERB [--config FILE ...] [--key value ...]",
            "",
            *lines,
            "",
            "For example:",
            "  ssl-lightning fit --config configs/deepcluster.yaml --config configs/data/cifar10.yaml",
            "`ssl-lightning VERB --help` lists the options of a verb; README.md has the rest.",
        ]
    )


def main() -> None:
    """Run a verb and leave with its exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview() + "\n")
        return
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"{__version__}\n")
        return
    if arguments[0] not in LOOPS | VERBS:
        known = ", ".join(LOOPS | VERBS)
        sys.exit(_complain(f"found the verb {arguments[0]!r}; expected one of {known}"))
    from ssl_lightning.cli import run  # torch and Lightning take seconds to import

    sys.exit(run(arguments))


def _complain(line: str) -> int:
    sys.stderr.write(f"ssl-lightning: error: {line}\n")
    return 2
