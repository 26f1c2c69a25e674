"""Every kind of fault."""

from . import kills

CELLS = [*kills.CELLS]
