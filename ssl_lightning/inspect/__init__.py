"""What notebooks need: a run of any method, its clusters, features and units, as tables and figures.

`load_run("runs/demo")` opens a run, `clusters(run)` and `features(run)` compute, and functions `draw_...` take their
results.
"""

from ssl_lightning.inspect.clustered import (
    Clusters,
    cluster_numbers,
    cluster_table,
    clusters,
    saved_clusters,
)
from ssl_lightning.inspect.embedded import (
    Features,
    agreement_of_neighbors,
    collapse,
    features,
    layer_similarity,
    layer_table,
    stages,
)
from ssl_lightning.inspect.figures import (
    draw_clusters,
    draw_filters,
    draw_map,
    draw_neighbors,
    draw_purity,
    draw_sizes,
    draw_units,
    map_points,
)
from ssl_lightning.inspect.run import Run, load_run
from ssl_lightning.inspect.units import filters, strongest, varying_units

__all__ = [
    "Clusters",
    "Features",
    "Run",
    "agreement_of_neighbors",
    "cluster_numbers",
    "cluster_table",
    "clusters",
    "collapse",
    "draw_clusters",
    "draw_filters",
    "draw_map",
    "draw_neighbors",
    "draw_purity",
    "draw_sizes",
    "draw_units",
    "features",
    "filters",
    "layer_similarity",
    "layer_table",
    "load_run",
    "map_points",
    "saved_clusters",
    "stages",
    "strongest",
    "varying_units",
]
