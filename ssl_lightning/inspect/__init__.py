"""What notebooks need: a run of any method, its clusters, features and units, as tables and figures.

`load_run("runs/demo")` opens a run, `clusters(run)` and `features(run)` compute, and functions `draw_...` take their
results.
"""

from ssl_lightning.inspect.clustered import (
    Clusters,
    center_similarity,
    cluster_history,
    cluster_numbers,
    cluster_table,
    clusters,
    saved_clusters,
)
from ssl_lightning.inspect.commands import command, example_images, save_backbone
from ssl_lightning.inspect.comparison import (
    differing_settings,
    draw_curves,
    feature_similarity,
    load_runs,
    results,
    run_facts,
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
from ssl_lightning.inspect.experts import (
    Division,
    agreement_of_networks,
    expert_table,
    kept_by_distillation,
    load_division,
    other_experts,
)
from ssl_lightning.inspect.figures import (
    draw_clusters,
    draw_filters,
    draw_followed,
    draw_history,
    draw_map,
    draw_neighbors,
    draw_purity,
    draw_similarity,
    draw_sizes,
    draw_units,
    hover_html,
    map_points,
)
from ssl_lightning.inspect.run import Run, load_run
from ssl_lightning.inspect.units import filters, strongest, varying_units

__all__ = [
    "Clusters",
    "Division",
    "Features",
    "Run",
    "agreement_of_neighbors",
    "agreement_of_networks",
    "center_similarity",
    "cluster_history",
    "cluster_numbers",
    "cluster_table",
    "clusters",
    "collapse",
    "command",
    "differing_settings",
    "draw_clusters",
    "draw_curves",
    "draw_filters",
    "draw_followed",
    "draw_history",
    "draw_map",
    "draw_neighbors",
    "draw_purity",
    "draw_similarity",
    "draw_sizes",
    "draw_units",
    "example_images",
    "expert_table",
    "feature_similarity",
    "features",
    "filters",
    "hover_html",
    "kept_by_distillation",
    "layer_similarity",
    "layer_table",
    "load_division",
    "load_run",
    "load_runs",
    "map_points",
    "other_experts",
    "results",
    "run_facts",
    "save_backbone",
    "saved_clusters",
    "stages",
    "strongest",
    "varying_units",
]
