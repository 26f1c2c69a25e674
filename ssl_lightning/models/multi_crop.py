"""Features of all views of a batch, with one call of the backbone per resolution (SwAV)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def features_of_views(backbone: nn.Module, views: list[Float[Tensor, "B 3 _h _w"]]) -> Float[Tensor, "VB D"]:
    """Features of every view, view after view.

    Views of one resolution pass through the backbone together, so that batch statistics span all of them, as in the
    code of Caron et al. 2020. Views of different resolutions are separate.

    Args:
        backbone: Images to features.
        views: Views with equally many images each.
    """
    places: dict[int, list[int]] = {}
    for place, view in enumerate(views):
        places.setdefault(view.shape[-1], []).append(place)
    if len(places) == 1:
        return backbone(torch.cat(views))
    features: list[Tensor] = [views[0]] * len(views)
    for same_size in places.values():
        parts = backbone(torch.cat([views[place] for place in same_size])).chunk(len(same_size))
        for place, part in zip(same_size, parts, strict=True):
            features[place] = part
    return torch.cat(features)
