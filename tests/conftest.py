"""Shapes in annotations are checked in every test: the import hook must stand before the package is imported."""

from jaxtyping import install_import_hook

install_import_hook("ssl_lightning", "beartype.beartype")
