"""Every kind of fault."""

from . import damage, disk, fuzz, kills, pairs, signals, training, untrusted

KINDS = (kills, signals, pairs, disk, training, damage, fuzz, untrusted)
CELLS = [cell for kind in KINDS for cell in kind.CELLS]
