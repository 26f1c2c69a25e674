"""Entry point: from a command line to its subcommand; without torch until it is needed, so that `--help` is quick."""

import errno
import logging
import signal
import sys
import traceback
from pathlib import Path

from ssl_lightning import __version__
from ssl_lightning.command_line import binary_config
from ssl_lightning.errors import DiskError, InterruptError, PreemptedError, RequeueError, RunStoppedError, one_line

LOOPS = {
    "fit": "train a method; the same command again resumes an unfinished run",
    "validate": "evaluate a checkpoint (or, without one, an untrained network) on the probe sets",
    "test": "the same as validate",
    "predict": "embed the training images, with WriteClusters: write their clusters",
}
SUBCOMMANDS = {
    "demo": "train DeepCluster on real digits, evaluate it, and write a page to look at",
    "embed": "features of a source's images to a file, to be clustered again and again",
    "choose-k": "cluster a file of features for several K and draw what to choose by",
    "clusters": "a page with images of the clusters in a file that WriteClusters wrote",
    "experts": "state of the expert of every part of divided images, and what each knows of its own",
    "budget": "operations of runs in training, and for how many epochs the first would spend those of all",
    "check-setup": "versions, devices, data and speed that this machine has",
}

BEFORE_TRAINING = {"instantiate_classes", "_set_seed", "configure_optimizers"}
"""Functions in which a run is put together from what the user gave, of Lightning's command line and of a method."""


DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}
"""What a disk says that is full, broken or read-only."""

STOPPED_BY_SIGNAL = {RequeueError.exit_code, InterruptError.exit_code, PreemptedError.exit_code}


def overview() -> str:
    """Every subcommand in a line."""
    lines = [f"  {subcommand:<12} {text}" for subcommand, text in (LOOPS | SUBCOMMANDS).items()]
    return "\n".join(
        [
            f"ssl-lightning {__version__}: self-supervised learning by clustering, and from uncurated images",
            "",
            "usage: ssl-lightning SUBCOMMAND [--config FILE ...] [--key value ...]",
            "",
            *lines,
            "",
            "For example:",
            "  ssl-lightning fit --config configs/deepcluster.yaml --config configs/data/cifar10.yaml",
            "`ssl-lightning SUBCOMMAND --help` lists the options of a subcommand; README.md has the rest.",
        ]
    )


def main() -> None:
    """Run a subcommand and leave with its exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview() + "\n")
        return
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"{__version__}\n")
        return
    if arguments[0] not in LOOPS | SUBCOMMANDS:
        known = ", ".join(LOOPS | SUBCOMMANDS)
        sys.exit(_complain(f"found the subcommand {arguments[0]!r}; expected one of {known}", 2))
    code = run(arguments)
    if code in STOPPED_BY_SIGNAL:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # one more would change the code while the interpreter ends
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Carry out a command line; the exit code. A user's mistake is one line, a mistake of ours a traceback."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ssl_lightning").setLevel(logging.INFO)
    try:
        _carry_out(arguments)
    except RunStoppedError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:  # outside of the loops, which note it
        return _complain("stopped by Ctrl-C; the same command starts again or resumes", InterruptError.exit_code)
    except Exception as error:
        binary = binary_config(arguments) if isinstance(error, UnicodeDecodeError) else None
        if binary is not None:
            return _complain(_no_yaml(binary), 2)
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            return _complain(_disk_trouble(error), DiskError.exit_code)
        line = _mistake(error)
        if line is None:
            raise
        return _complain(line, 65)
    return 0


def _carry_out(arguments: list[str]) -> None:
    if arguments[0] in LOOPS:
        from ssl_lightning.cli import CommandLine

        CommandLine(arguments)
    else:
        from ssl_lightning.commands import run_subcommand

        run_subcommand(arguments)


def _mistake(error: Exception) -> str | None:
    """What to tell the user if the error is theirs to fix; None for a mistake of ours, which needs its traceback.

    While a run is put together the parser wraps what a constructor said, once for every level of the configuration,
    and torch and Lightning check their own options: there the innermost error counts. Later only our own checks do.
    """
    if isinstance(error, ValueError | OSError) and _is_ours(error):
        return str(error)
    frames = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, which is not imported here
        return str(error)
    if frames & BEFORE_TRAINING and isinstance(error, ValueError | OSError):
        innermost = _chain(error)[-1]
        return str(innermost) if isinstance(innermost, ValueError | OSError) else None
    return None


def _no_yaml(path: str) -> str:
    return (
        f"found {path}, which is no YAML file (text in UTF-8); expected one, such as those in configs/: a checkpoint "
        "goes to --ckpt_path, or to --run.start_from for its weights alone"
    )


def _disk_trouble(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    return (
        f"found a disk that cannot be written{where} ({error.strerror}); what was written before is kept: free some "
        "space and give the same command again"
    )


def _is_ours(error: BaseException) -> bool:
    """Whether a check of this package raised it on purpose: such errors are written for people."""
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path(__file__).parent)
    return bool(frames) and frames[-1].filename.startswith(here)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what led to it, back to the first error of ours or else to the very first."""
    chain = [error]
    while not _is_ours(chain[-1]):
        earlier = chain[-1].__cause__ or chain[-1].__context__
        if earlier is None:
            break
        chain.append(earlier)
    return chain


def _complain(line: str, code: int) -> int:
    sys.stderr.write(f"ssl-lightning: error: {one_line(line)}\n")
    return code
