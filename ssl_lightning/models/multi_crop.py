"""Features of all views of a batch: one call of the backbone for each resolution [SwAV]."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def features_of_views(backbone: nn.Module, views: list[Float[Tensor, "B 3 _h _w"]]) -> Float[Tensor, "VB D"]:
    """Features of every view, view after view.

    Views of one resolution pass through the backbone together, so its batch statistics span all of them, as in the
    code of Caron et al. 2020; those of different resolutions do not mix.

    Args:
        backbone: Images to features.
        views: Of equally many images each.
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
