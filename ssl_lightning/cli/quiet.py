"""Suppression of messages and timers of Lightning."""

import logging
import warnings
from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.profilers import PassThroughProfiler


def quieten() -> None:
    """Suppress advertisements of Lightning, and warnings that do not apply here."""
    for pattern in (
        ".*does not have many workers.*",  # images in memory are served by the main process, faster than by workers
        ".*smaller than the logging interval.*",  # we write a last row anyway
        ".*LeafSpec.*",  # Lightning 2.6 on torch 2.14: pytorch-lightning has not moved to the new spelling yet
        ".*returned a view tensor.*",  # of sharded modules; nothing is done to their outputs in place
        ".*in eval mode at the start of training.*",  # frozen parts are so on purpose
        ".*overrides the `?configure_model`? callback.*",  # it does nothing unless parameters are sharded
    ):
        warnings.filterwarnings("ignore", pattern)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_adverts)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for part in ("callbacks", "profilers"):  # the table of a profiler, or why EarlyStopping ends a run
        logging.getLogger(f"lightning.pytorch.{part}").setLevel(logging.INFO)


def _no_adverts(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage() and "litmodels" not in record.getMessage()


class NoProfiler(PassThroughProfiler):
    """Times nothing, and takes no time for it: what a run has where `--trainer.profiler` names none.

    Lightning's own does nothing either, but enters a generator for it, over 150 times a step: every hook of every
    callback. That is up to a third of what a step takes beside its mathematics (benchmarks/README.md).
    """

    NOTHING = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
        """Enter and leave nothing."""
        return self.NOTHING
