"""The engine of an option: local, ray, or the address of a Ray cluster."""

from ssl_lightning.engines.engine import Engine
from ssl_lightning.engines.local import LocalProcesses, cores
from ssl_lightning.engines.ray_cluster import RayCluster
from ssl_lightning.errors import UsageError

LOCAL = "local"
"""The default engine."""
ADDRESS = "ray://"
"""Start of the address of a cluster."""
_RAY = "ray"


def engine_named(name: str, workers: int | None = None, gpus: int = 0) -> Engine:
    """The engine of an option.

    Args:
        name: local, ray, or ray://<host>:<port>.
        workers: Number of tasks at a time; None for one for each core of the machine or cluster.
        gpus: GPUs that each task takes on a cluster.

    Raises:
        UsageError: For another name or number, or if the package ray is not installed.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"found workers={workers}; expected at least 1")
    if name == LOCAL:
        return LocalProcesses(workers or cores())
    if name == _RAY:
        return RayCluster(None, workers, gpus)
    if name.startswith(ADDRESS):
        return RayCluster(name, workers, gpus)
    raise UsageError(f"found engine={name!r}; expected local, ray, or the address of a cluster, ray://<host>:<port>")
