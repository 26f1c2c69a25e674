"""Engines: where the tasks of a command are carried out, in processes of this machine or on a Ray cluster."""

from ssl_lightning.engines.engine import Count, Engine
from ssl_lightning.engines.job import Job
from ssl_lightning.engines.local import LocalProcesses, cores
from ssl_lightning.engines.named import ADDRESS, LOCAL, engine_named
from ssl_lightning.engines.ray_cluster import RayCluster

__all__ = ["ADDRESS", "LOCAL", "Count", "Engine", "Job", "LocalProcesses", "RayCluster", "cores", "engine_named"]
