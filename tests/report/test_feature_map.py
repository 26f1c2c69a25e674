"""The map of the features: PCA as scikit-learn's, t-SNE keeps groups apart, and each point has its group's color."""

import pytest
import torch
from matplotlib.colors import to_hex
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from ssl_lightning.report.feature_map import draw_feature_map, to_plane


@pytest.fixture
def blobs():
    """Three groups of 40 rows in 16 dimensions, and the group of each row."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(3).repeat_interleave(40)
    centers = torch.randn(3, 16, generator=generator)
    return centers[groups] + 0.15 * torch.randn(120, 16, generator=generator), groups


def test_pca_is_that_of_unit_rows(blobs):
    features, _ = blobs
    unit = features / features.norm(dim=1, keepdim=True)
    reference = torch.from_numpy(PCA(2, svd_solver="full").fit_transform(unit.double().numpy()))
    points = to_plane(features, "pca").double()
    signs = (points * reference).sum(0).sign()
    torch.testing.assert_close(points * signs, reference, atol=1e-5, rtol=0)


def test_the_length_of_a_row_does_not_matter(blobs):
    features, _ = blobs
    scale = torch.linspace(0.1, 10, len(features)).unsqueeze(1)
    torch.testing.assert_close(to_plane(features * scale, "pca"), to_plane(features, "pca"), atol=1e-5, rtol=0)


def test_tsne_keeps_neighbors_and_is_a_function_of_its_seed(blobs):
    features, groups = blobs
    points = to_plane(features, "tsne", seed=3)
    assert points.shape == (120, 2)
    assert torch.equal(points, to_plane(features, "tsne", seed=3))
    unit = features / features.norm(dim=1, keepdim=True)
    assert trustworthiness(unit.numpy(), points.numpy(), n_neighbors=10) > 0.9
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(1)
    assert (groups[nearest] == groups).float().mean() > 0.98


def test_few_rows_are_mapped_and_fewer_are_rejected():
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert to_plane(features).isfinite().all()
    with pytest.raises(ValueError, match="found 3 rows to map; expected at least 4"):
        to_plane(features[:3])


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-7])
def test_a_collapsed_model_is_mapped_too(scale):
    features = 1 + scale * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert to_plane(features, "tsne").isfinite().all()
    assert to_plane(features, "pca").abs().max() < 1e-5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_features_that_are_all_one_point_are_mapped_too(value):
    for how in ("pca", "tsne"):
        assert to_plane(torch.full((20, 8), value), how).isfinite().all()


def test_features_that_are_not_finite_are_rejected():
    features = torch.randn(20, 8)
    features[3, 2] = torch.nan
    with pytest.raises(ValueError, match="found features that are not finite"):
        to_plane(features)


def test_one_feature_is_mapped_onto_a_plane():
    for how in ("pca", "tsne"):
        assert to_plane(torch.linspace(-1, 1, 20).unsqueeze(1), how).shape == (20, 2)


def colors(axes):
    """Color of each point of a panel, by its place."""
    return {
        tuple(place): to_hex(dots.get_facecolor()[0])
        for dots in axes.collections
        for place in dots.get_offsets().tolist()
    }


def test_each_point_has_the_color_of_its_group_and_the_name_stands_on_one_of_them(blobs):
    _, groups = blobs
    points = torch.randn(120, 2, generator=torch.Generator().manual_seed(1))
    groups = groups.clone()
    groups[::10] = -1
    by_three, by_many = draw_feature_map(
        points, {"by label": groups, "by cluster": torch.arange(120) % 30}, {"by label": ["cat", "dog", "hen"]}
    ).axes
    assert (by_three.get_title(), by_many.get_title()) == ("by label", "by cluster")
    for axes, given in ((by_three, groups), (by_many, torch.arange(120) % 30)):
        found = colors(axes)
        shown = [found[tuple(place)] for place in points.double().tolist()]
        pairs = {(group, color) for group, color in zip(given.tolist(), shown, strict=True)}
        assert len(pairs) == len({group for group, _ in pairs}) == len({color for _, color in pairs})
    assert [text.get_text() for text in by_three.texts] == ["cat", "dog", "hen"]
    for group, text in enumerate(by_three.texts):
        assert text.xy in {tuple(place) for place in points[groups == group].tolist()}


def test_names_of_groups_that_lie_together_keep_apart():
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([torch.randn(60, 2, generator=generator) for _ in range(4)])
    (axes,) = draw_feature_map(points, {"a": torch.arange(4).repeat_interleave(60)}).axes
    places = torch.tensor([text.xy for text in axes.texts])
    extent = (points.amax(0) - points.amin(0)).max()
    assert torch.pdist(places).min() > 0.02 * extent


def test_a_map_of_very_many_groups_has_no_names():
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    (axes,) = draw_feature_map(points, {"a": torch.arange(200) % 100}).axes
    assert not axes.texts
