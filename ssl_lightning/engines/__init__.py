"""Engines: where the tasks of a command are carried out, in processes of this machine or on a Ray cluster."""

from ssl_lightning.engines.engine import Count, Engine
from ssl_lightning.engines.job import Job
from ssl_lightning.engines.local import LocalProcesses, cores
from ssl_lightning.engines.named import LOCAL, engine_named

__all__ = ["LOCAL", "Count", "Engine", "Job", "LocalProcesses", "cores", "engine_named"]
