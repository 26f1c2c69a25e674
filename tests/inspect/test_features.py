"""Features, layers and units against what the network gives by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation import rank_me
from ssl_lightning.inspect import (
    agreement_of_neighbors,
    collapse,
    draw_filters,
    draw_units,
    features,
    filters,
    layer_similarity,
    layer_table,
    load_run,
    stages,
    strongest,
    varying_units,
)
from ssl_lightning.methods import MoCLR, RawPixels
from ssl_lightning.models import ResNet18


def views(run, rows):
    """The input of the network: digits are stored in half the size."""
    return torch.cat([run.data.center(raw).views[0] for raw in run.data.predict_dataloader()])[rows]


def test_few_images_are_selected_and_the_number_of_others_is_shown(simclr):
    run = load_run(simclr)
    found = features(run, max_images=100)
    assert found.rows.shape == (100,)
    assert bool((found.rows.diff() > 0).all())
    assert found.labels.tolist() == run.data.labels[found.rows].tolist()
    assert str(found) == "100 images, 64 values each, layer backbone; 1,338 images left out"
    assert features(run, max_images=100) is found
    with torch.no_grad():
        expected = run.method.embed(views(run, found.rows))
    torch.testing.assert_close(found.values, expected)
    whole = features(run)
    assert (whole.left_out, len(whole.rows)) == (0, 1438)
    torch.testing.assert_close(whole.values[found.rows], found.values)


def test_layers_are_those_of_the_method_and_stages_those_of_the_backbone(simclr):
    run = load_run(simclr)
    assert stages(run) == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    found = features(run, "layer2", max_images=50)
    body = run.method.backbone.body
    with torch.no_grad():
        maps = body.layer2(body.layer1(body.maxpool(body.act1(body.bn1(body.conv1(views(run, found.rows)))))))
    expected = torch.tensor([[float(m.max()) for m in image] for image in maps])
    torch.testing.assert_close(found.values, expected)
    unit = features(run, "projector", max_images=50).values
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(50))
    assert not body.layer2._forward_hooks
    with pytest.raises(UsageError, match="found layer='layer9'; expected one of backbone, hidden, projector, conv1"):
        features(run, "layer9")


def test_averaged_weights_are_an_argument(trained):
    head = ["--model.hidden", "[32]", "--model.projection", "16"]
    run = load_run(trained("moclr", "moclr", *head))
    assert isinstance(run.method, MoCLR)
    online, ema = (features(run, weights=weights, max_images=30).values for weights in ("online", "ema"))
    assert not torch.equal(online, ema)


def test_measures_of_collapse_are_those_of_their_definitions(simclr):
    found = features(load_run(simclr), max_images=60)
    numbers, unit = collapse(found), F.normalize(found.values.double(), dim=1)
    pairs = [float(unit[i] @ unit[j]) for i in range(60) for j in range(60) if i != j]
    assert numbers["cosine"] == pytest.approx(sum(pairs) / len(pairs))
    assert (numbers["width"], numbers["rankme"]) == (64, rank_me(found.values))
    eigenvalues = torch.linalg.eigvalsh(torch.cov(unit.T, correction=0))
    assert numbers["directions"] == pytest.approx(float(eigenvalues.sum() ** 2 / eigenvalues.square().sum()), rel=1e-3)


def test_the_table_of_layers_has_a_row_for_each(simclr):
    run = load_run(simclr)
    names = [*stages(run), *run.method.layers]
    table, similarity = layer_table(run, max_images=80), layer_similarity(run, max_images=80)
    assert table.index.tolist() == similarity.index.tolist() == similarity.columns.tolist() == names
    assert table.width.tolist() == [8, 8, 16, 32, 64, 64, 32, 16]
    assert table["agreement of neighbors"].between(0, 1).all()
    assert similarity.to_numpy().diagonal() == pytest.approx(1)


def test_the_agreement_of_neighbors_is_a_share_and_unknown_without_labels(simclr):
    found = features(load_run(simclr), max_images=60)
    unit = F.normalize(found.values, dim=1)
    shares = []
    for row in range(60):
        scores = {other: float(unit[row] @ unit[other]) for other in range(60) if other != row}
        others = sorted(scores, key=lambda other, scores=scores: -scores[other])
        shares.append(sum(int(found.labels[other] == found.labels[row]) for other in others[:10]) / 10)
    assert agreement_of_neighbors(found) == pytest.approx(sum(shares) / 60)
    unknown = type(found)(found.values, found.rows, torch.full((60,), -1), found.layer, 0)
    assert math.isnan(agreement_of_neighbors(unknown))


def test_the_strongest_images_of_a_unit_are_those_of_its_largest_values(simclr):
    run = load_run(simclr)
    found = features(run, "layer3", max_images=90)
    unit = int(varying_units(found, 1))
    spread = [float(column.double().std(correction=0)) for column in found.values.T]
    assert unit == max(range(len(spread)), key=spread.__getitem__)
    rows, values = strongest(found, unit, 5)
    pairs = sorted(zip(found.values[:, unit].tolist(), found.rows.tolist(), strict=True), key=lambda pair: -pair[0])[:5]
    assert (values.tolist(), rows.tolist()) == ([value for value, _ in pairs], [row for _, row in pairs])
    with pytest.raises(UsageError, match="found unit=32; expected 0 to 31 in layer layer3"):
        strongest(found, 32)
    assert len(draw_units(run, found, 3).axes) == 3


def test_filters_are_the_weights_of_the_first_convolution(simclr):
    run = load_run(simclr)
    weight = run.method.backbone.body.conv1.weight.detach()
    shown = filters(run)
    assert shown.shape == (8, 3, 3, 3)
    for image, own in zip(shown, weight, strict=True):
        expected = 255 * (own - own.min()) / (own.max() - own.min())
        torch.testing.assert_close(image.float(), expected, atol=0.5, rtol=0)
    assert draw_filters(run).axes[0].get_title(loc="left") == "8 of 8 filters of 3 x 3 pixels"


def test_filters_of_other_channels_are_gray_and_none_is_one_line(simclr):
    run = load_run(simclr)
    run.method.backbone = ResNet18(8).build(in_channels=2)
    shown = filters(run)
    assert shown.shape == (16, 3, 3, 3)
    assert torch.equal(shown[:, 0], shown[:, 2])
    run.method = RawPixels()
    assert not any(isinstance(part, nn.Conv2d) for part in run.method.modules())
    with pytest.raises(UsageError, match="found no convolution in the backbone of simclr"):
        filters(run)
