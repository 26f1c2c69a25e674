"""Shapes in annotations are checked: the import hook must stand before the package is imported.

`CHECK_SHAPES=0` leaves that out, for the slow tests, which train for thousands of steps: it doubles the time of one.
"""

import os
import sys

from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Two workers on two cores: where each has a pool of threads, the tests take five times as long. Commands inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `make test` passes its own flags and level on: a make that a test starts would print the folders that it enters.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "GNUMAKEFLAGS", "MAKEOVERRIDES"):
    os.environ.pop(name, None)
# No test depends on the speed of the machine
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
if os.environ.get("CHECK_SHAPES", "1") != "0":
    install_import_hook("ssl_lightning", "beartype.beartype")


OF_PROCESSES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
"""Variables that Lightning sets in a process with several ranks."""


def pytest_collection_modifyitems(config, items):
    """Leave out what takes an hour unless it is selected."""
    if "soak" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)


def pytest_runtest_teardown():
    """Remove the variables of a run with several ranks: a later run would listen on the port of the first."""
    for name in OF_PROCESSES:
        os.environ.pop(name, None)


def pytest_runtest_setup():
    """Maps of features by PCA: t-SNE takes two seconds at the end of each of the hundreds of runs of these tests."""
    sections = sys.modules.get("ssl_lightning.report.feature_sections")
    if sections is not None:
        sections.PROJECTION = "pca"
