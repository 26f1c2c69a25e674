"""Shapes in annotations are checked in every test: the import hook must stand before the package is imported."""

import os

from jaxtyping import install_import_hook

# Two workers on two cores: where each has a pool of threads, the tests take five times as long. Commands inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
install_import_hook("ssl_lightning", "beartype.beartype")
