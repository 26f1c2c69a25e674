"""Entry point: from a command line to its subcommand, and from an error to an exit code.

torch is not imported until a subcommand needs it, so that `--help` is quick.
"""

import errno
import json
import logging
import os
import select
import signal
import sys
import traceback
from difflib import get_close_matches
from importlib import import_module

from ssl_lightning import __version__
from ssl_lightning.arguments import Option, leading, options_in
from ssl_lightning.cli.subcommands import GROUPS, SUBCOMMANDS, Subcommand
from ssl_lightning.errors import (
    DiskError,
    HookError,
    InterruptError,
    ParsingError,
    PreemptedError,
    RequeueError,
    RunStoppedError,
    debugging,
    one_line,
)

DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}
"""Errors of a disk that is full, broken or read-only."""

STOPPED_BY_SIGNAL = {RequeueError.exit_code, InterruptError.exit_code, PreemptedError.exit_code}
FAILURE = 1
"""Exit code of a failure of this package."""
NOBODY_READS = 141
"""Exit code of a program in a pipe with an ended reader, as shells report it: 128 + SIGPIPE."""


WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "1000"}
"""How threads wait for each other, for the OpenMP runtimes of GNU and Intel: that of GNU spins for a moment.

By default they spin for long. Beside other busy processes, a thread that spins takes the core from the one that it
waits for. A short spin costs little there, and saves what waking a thread costs small batches on idle cores
(benchmarks/README.md).
"""


def main() -> None:
    """Run a subcommand and leave with its exit code."""
    _set_waiting()
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview() + "\n")
        return
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"{__version__}\n")
        return
    if _lists_group(arguments):
        sys.stdout.write(overview(arguments[0]) + "\n")
        return
    name, _ = divided(arguments)
    if name not in SUBCOMMANDS:
        sys.exit(_report(f"found the subcommand {name!r}; expected {_meant(name)}", ParsingError.exit_code))
    try:
        code = run(arguments)
    except SystemExit as ended:  # of the parser, after help or an error
        code = ended.code
    code = NOBODY_READS if _nobody_reads() else code
    if code in STOPPED_BY_SIGNAL:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # one more would change the code while the interpreter ends
    sys.exit(code)


def _lists_group(arguments: list[str]) -> bool:
    """Whether a command line is a group without one of its subcommands."""
    return arguments[0] in GROUPS and (len(arguments) == 1 or arguments[1] in ("-h", "--help", "help"))


def divided(arguments: list[str]) -> tuple[str, list[str]]:
    """The name of the subcommand, of two words in a group, and the rest of a command line."""
    words = 2 if arguments[0] in GROUPS else 1
    return " ".join(arguments[:words]), arguments[words:]


def _meant(name: str) -> str:
    """The subcommand that is most like a misspelled one, or all of them, of its group where it has one."""
    group = name.split(" ")[0]
    names = [each for each in SUBCOMMANDS if group not in GROUPS or each.startswith(f"{group} ")]
    close = get_close_matches(name, names, n=1)
    return close[0] if close else f"one of {', '.join(names)}"


def overview(group: str = "") -> str:
    """Every subcommand in a line.

    Args:
        group: Only those of this group.
    """
    if group:
        chosen = [subcommand for name, subcommand in SUBCOMMANDS.items() if name.startswith(f"{group} ")]
        return "\n".join(
            [
                f"usage: ssl-lightning {group} SUBCOMMAND [--key value ...]",
                "",
                *(f"  {subcommand.name:<12} {subcommand.help}" for subcommand in chosen),
                "",
                f"`ssl-lightning {group} SUBCOMMAND --help` lists the options of a subcommand.",
            ]
        )
    return "\n".join(
        [
            f"ssl-lightning {__version__}: self-supervised learning by clustering, and from uncurated images",
            "",
            "usage: ssl-lightning SUBCOMMAND [--config FILE_OR_NAME ...] [--key value ...]",
            "",
            *(f"  {subcommand.name:<12} {subcommand.help}" for subcommand in SUBCOMMANDS.values()),
            "",
            "For example:",
            "  ssl-lightning fit --config deepcluster --config data/cifar10",
            "`ssl-lightning SUBCOMMAND --help` lists the options of a subcommand; README.md has the rest.",
        ]
    )


def run(arguments: list[str]) -> int:
    """Carry out a command line.

    Args:
        arguments: Subcommand and options.

    Returns:
        The exit code. A mistake of the user, a signal or a full disk is one line; anything else a traceback.
    """
    logging.basicConfig(format="%(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_shown)
    logging.getLogger("ssl_lightning").setLevel(logging.INFO)
    try:
        dispatch(arguments)
    except RunStoppedError as error:
        return _report(str(error), error.exit_code, error)
    except KeyboardInterrupt:  # outside of the loops, which note it
        return _report("stopped by Ctrl-C; the same command starts again or resumes", InterruptError.exit_code)
    except HookError as error:
        return _fail(error.__cause__ or error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            return _report(_disk_trouble(error), DiskError.exit_code, error)
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return NOBODY_READS
        return _fail(error)
    return 0


def _set_waiting() -> None:
    """Set how threads wait, before torch is imported, unless the user has set any of it."""
    if not WAITING.keys() & os.environ.keys():
        os.environ.update(WAITING)


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a record is printed: all processes of a distributed run log the same lines, and the first prints them."""
    from lightning_utilities.core.rank_zero import rank_zero_only  # not for --help; Lightning sets its rank

    ours = record.name.partition(".")[0] == "ssl_lightning"
    return not ours or record.levelno >= logging.ERROR or not getattr(rank_zero_only, "rank", None)


def dispatch(arguments: list[str]) -> None:
    """Hand a command line to its subcommand."""
    name, options = divided(arguments)
    subcommand = SUBCOMMANDS[name]
    if subcommand.is_lightnings:
        import_module(subcommand.module).main(arguments)
        return
    from ssl_lightning.cli.function import call  # the parser imports torch

    call(subcommand, _for_parser(subcommand, options))


def _for_parser(subcommand: Subcommand, options: list[str]) -> list[str]:
    """Options as the parser takes them: leading folders as one list, a leading name with its option."""
    split = options_in(options)
    first = leading(split)
    words = [word for option in split for word in _with_value(option, subcommand.flags)]
    if subcommand.takes_folders and first:
        listed = json.dumps(first)
        return [f"--{subcommand.first_option}={listed}" if subcommand.first_option else listed, *words[len(first) :]]
    if subcommand.first_option and first:
        return [f"--{subcommand.first_option}={first[0]}", *words[1:]]
    return words


def _with_value(option: Option, flags: tuple[str, ...]) -> tuple[str, ...]:
    return (f"--{option.name}=true",) if option.name in flags and option.value is None else option.for_parser


def _disk_trouble(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    return (
        f"found a disk that cannot be written{where} ({error.strerror}); what was written before is kept: free some "
        "space and give the same command again"
    )


def _nobody_reads() -> bool:
    """Whether the reader of standard output has ended, as `head` does; then what is still to be written is dropped."""
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # replaced by an object without a file
        return False
    poll = select.poll()
    poll.register(output, 0)
    ended = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if ended:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return ended


def _report(line: str, code: int, error: BaseException | None = None) -> int:
    """One line on standard error, after the traceback where `SSL_LIGHTNING_DEBUG` requests it."""
    if error is not None and debugging():
        traceback.print_exception(error)
    sys.stderr.write(f"ssl-lightning: error: {one_line(line)}\n")
    return code


def _fail(error: BaseException) -> int:
    """The traceback of a failure of this package, and what to do about it."""
    traceback.print_exception(error)
    sys.stderr.write(
        f"ssl-lightning {__version__}: unexpected error; unless a setting of yours explains it, please report it with "
        f"the lines above{_tracker()}\n"
    )
    return FAILURE


def _tracker() -> str:
    """Address of the issue tracker, where the installed package names one."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        urls = metadata("ssl-lightning").get_all("Project-URL") or []
    except PackageNotFoundError:
        urls = []
    named = dict(url.split(", ", 1) for url in urls if ", " in url)
    return f" to {named['Issues']}" if "Issues" in named else ""
