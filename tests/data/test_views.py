"""Views of a batch: torchvision's operations image by image, its distribution of crops, random numbers by row alone."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ssl_lightning.data.color import ORDERS, blend_, blur_, blur_taps, grayscale_, hue_, jitter_, solarize_
from ssl_lightning.data.crops import affine, center_view, crop_resize, random_boxes
from ssl_lightning.data.reading import CropSpec, Task
from ssl_lightning.data.views import View, crop_boxes, expand, finish_crops, make_view, make_views

KEY = {"seed": 3, "epoch": 2, "number": 1}
LEVEL = 1 / 255
STRONG = View(color_jitter=(0.8, 0.8, 0.8, 0.2), gaussian_blur=0.5, solarize=0.3)


def photographs(count: int, height: int, width: int, seed: int = 0):
    """Smooth uint8 images with edges, flat parts, pure grays and saturated corners."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, max(2, height // 6), max(2, width // 6), generator=generator) * 1.6 - 0.3
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    images[:, :, : height // 4, : width // 4] = images[:, :, :1, :1].mean(1, keepdim=True)  # gray: hue has no angle
    images[:, 1:, -height // 5 :, -width // 5 :] = 0.0  # pure red
    return (images * 255).round().byte()


def factors_of(count: int, low: float, high: float):
    return torch.linspace(low, high, count)


def worst(found, expected) -> float:
    return (found - expected).abs().max().item()


def mean_error(found, expected) -> float:
    return (found - expected).abs().mean().item()


# Crops


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 64), (61, 23), (150, 200)])
@pytest.mark.parametrize("size", [16, 32, 45])
def test_a_crop_is_torchvisions_crop_for_every_box(height, width, size):
    images = photographs(24, height, width)
    rows = torch.arange(24)
    boxes = crop_boxes(View(scale=(0.05, 1.0)), rows * 0 + height, rows * 0 + width, rows=rows, **KEY)
    found = crop_resize(images, boxes, size)
    floats = crop_resize(images / 255, boxes, size)
    for i, (top, left, h, w) in enumerate(boxes.tolist()):
        exact = F.resized_crop(images[i] / 255, top, left, h, w, [size, size], antialias=True)
        rounded = F.resized_crop(images[i], top, left, h, w, [size, size], antialias=True) / 255
        assert worst(floats[i], exact) < 1e-5
        assert mean_error(found[i], exact) < 0.3 * LEVEL
        assert worst(found[i], rounded) < 1.01 * LEVEL


def test_a_crop_of_the_whole_image_at_its_own_size_changes_nothing():
    images = photographs(5, 32, 32)
    whole = torch.tensor([[0, 0, 32, 32]]).expand(5, 4)
    assert worst(crop_resize(images, whole, 32), images / 255) < 1e-6
    assert worst(crop_resize(images, whole, 32, flip=torch.ones(5, dtype=torch.bool)), images.flip(-1) / 255) < 1e-6


def test_one_pixel_is_a_crop_too():
    images = photographs(4, 32, 32)
    found = crop_resize(images, torch.tensor([[3, 5, 1, 1]]).expand(4, 4), 8)
    assert worst(found, (images[:, :, 3, 5] / 255)[:, :, None, None].expand(4, 3, 8, 8)) < 1e-6


def test_boxes_follow_torchvisions_law():
    count, height, width = 4000, 40, 60
    transform = v2.RandomResizedCrop(8, (0.2, 1.0), (3 / 4, 4 / 3), antialias=True)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    torch.manual_seed(0)
    parameters = [transform.make_params([image]) for _ in range(count)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in parameters]).float()
    rows = torch.arange(count)
    ours = crop_boxes(View(), rows * 0 + height, rows * 0 + width, rows=rows, **KEY).float()
    for column in range(4):
        gap = kolmogorov_smirnov(ours[:, column], theirs[:, column])
        assert gap < 1.95 * math.sqrt(2 / count), f"column {column}"  # one chance in a thousand
    gap = kolmogorov_smirnov(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert gap < 1.95 * math.sqrt(2 / count)


def kolmogorov_smirnov(a, b) -> float:
    points = torch.cat([a, b]).unique()
    share_a = torch.searchsorted(a.sort().values, points, right=True) / len(a)
    share_b = torch.searchsorted(b.sort().values, points, right=True) / len(b)
    return (share_a - share_b).abs().max().item()


@pytest.mark.parametrize(("height", "width"), [(200, 4), (4, 200), (32, 32), (1, 1), (7, 9)])
def test_a_box_lies_within_its_image_and_falls_back_as_torchvision_does(height, width):
    rows = torch.arange(200)
    boxes = crop_boxes(View(scale=(0.9, 1.0)), rows * 0 + height, rows * 0 + width, rows=rows, **KEY)
    top, left, h, w = boxes.unbind(1)
    assert (boxes[:, :2] >= 0).all()
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    if max(height, width) / min(height, width) > 10:  # no try can fit
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        p = v2.RandomResizedCrop(8, (0.9, 1.0), antialias=True).make_params([image])
        assert boxes.unique(dim=0).tolist() == [[p["top"], p["left"], p["height"], p["width"]]]


def test_boxes_by_hand():
    numbers = torch.zeros(1, 22)
    numbers[0, :10] = 0.5  # area 0.5 * (0.25 + 0.75) = 0.625 of 1600 pixels
    numbers[0, 10:20] = 0.5  # ratio 1
    numbers[0, 20:] = torch.tensor([0.0, 0.999])
    side = round(math.sqrt(0.625 * 1600))
    found = random_boxes(numbers, torch.tensor([40]), torch.tensor([40]), (0.25, 1.0), (0.5, 2.0))
    assert found.tolist() == [[0, 40 - side, side, side]]


@pytest.mark.parametrize("fraction", [1.0, 0.875, 0.5])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 31), (100, 160)])
def test_the_center_view_is_torchvisions_resize_and_center_crop(height, width, fraction):
    images = photographs(3, height, width)
    evaluate = v2.Compose([v2.Resize(round(24 / fraction), antialias=True), v2.CenterCrop(24)])
    assert worst(center_view(images, 24, fraction), evaluate(images) / 255) < 1e-6


def test_the_center_view_of_a_image_of_the_right_size_is_the_image():
    images = photographs(3, 32, 32)
    assert torch.equal(center_view(images, 32), images / 255)


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_a_center_view_rejects_an_impossible_fraction(fraction):
    with pytest.raises(ValueError, match="expected 0 < fraction <= 1"):
        center_view(photographs(1, 8, 8), 8, fraction)


def test_an_affine_move_is_torchvisions_then_the_mirror():
    images = photographs(12, 28, 28) / 255
    degrees = factors_of(12, -170, 175)
    shift = torch.stack([torch.arange(12) - 6.0, 5.0 - torch.arange(12)], 1)
    flip = torch.arange(12) % 3 == 0
    found = affine(images, degrees, shift, flip)
    for i in range(12):
        expected = F.affine(
            images[i], degrees[i].item(), shift[i].tolist(), 1.0, [0.0, 0.0], v2.InterpolationMode.BILINEAR
        )
        assert worst(found[i], expected.flip(-1) if flip[i] else expected) < 1e-4


# Colors


BLENDS = {
    "brightness": (F.adjust_brightness, lambda f: [f, 0 * f, 0 * f]),
    "contrast": (F.adjust_contrast, lambda f: [f, 0 * f, 1 - f]),
    "saturation": (F.adjust_saturation, lambda f: [f, 1 - f, 0 * f]),
}


@pytest.mark.parametrize("name", BLENDS)
def test_a_blend_is_torchvisions(name):
    images = photographs(20, 24, 30)
    theirs, weights = BLENDS[name]
    factor = factors_of(20, 0.0, 2.2)
    found = images / 255
    blend_(found, torch.stack(weights(factor), 1))
    for i, f in enumerate(factor.tolist()):
        assert worst(found[i], theirs(images[i] / 255, f)) < 1e-6
    on_uint8 = torch.stack([theirs(image, f) for image, f in zip(images, factor.tolist(), strict=True)])
    assert mean_error(found, on_uint8 / 255) < LEVEL


@pytest.mark.parametrize("largest", [0.1, 1 / 3, 0.5])
def test_a_turn_of_the_hue_is_torchvisions(largest):
    images = photographs(41, 24, 30)
    turns = factors_of(41, -largest, largest)
    found = images / 255
    hue_(found, turns, far=largest > 1 / 3)
    for i, turn in enumerate(turns.tolist()):
        assert worst(found[i], F.adjust_hue(images[i] / 255, turn)) < 1e-5
        assert mean_error(found[i], F.adjust_hue(images[i], turn) / 255) < LEVEL


def test_a_third_of_a_turn_moves_the_channels_round():
    image = photographs(1, 16, 16) / 255
    turned = image.clone()
    hue_(turned, torch.tensor([1 / 3]))
    assert worst(turned, image[:, [2, 0, 1]]) < 1e-5


def test_jitter_runs_each_of_the_24_orders_and_leaves_the_others_alone():
    images = photographs(48, 16, 20)
    generator = torch.Generator().manual_seed(1)
    factors = torch.rand(48, 4, generator=generator) * torch.tensor([1.2, 1.2, 1.2, 1.0]) + torch.tensor(
        [0.4] * 3 + [-0.5]
    )
    order, chosen = ORDERS.repeat(2, 1), torch.arange(48) >= 24
    found = images / 255
    jitter_(found, factors, order, chosen)
    assert torch.equal(found[:24], images[:24] / 255)
    operations = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    for i in range(24, 48):
        expected = images[i] / 255
        for which in order[i].tolist():
            expected = operations[which](expected, factors[i, which].item())
        assert worst(found[i], expected) < 1e-4
    assert ORDERS.unique(dim=0).shape == (24, 4)


@pytest.mark.parametrize("turn", [-0.5, -0.4, 0.34, 0.3])
def test_jitter_knows_which_turns_go_round(turn):
    images = photographs(30, 16, 20)
    factors = torch.tensor([1.0, 1.0, 1.0, turn]).expand(30, 4)
    found = images / 255
    jitter_(found, factors, ORDERS[:1].expand(30, 4), torch.ones(30, dtype=torch.bool))
    assert worst(found, F.adjust_hue(images / 255, turn)) < 1e-4


def test_gray_is_torchvisions():
    images, chosen = photographs(6, 9, 11), torch.tensor([True, False, True, True, False, True])
    found = images / 255
    grayscale_(found, chosen)
    assert worst(found[chosen], F.rgb_to_grayscale(images[chosen] / 255, 3)) < 1e-6
    assert mean_error(found[chosen], F.rgb_to_grayscale(images[chosen], 3) / 255) < LEVEL
    assert torch.equal(found[~chosen], images[~chosen] / 255)


def test_solarize_is_torchvisions_on_every_value():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16).contiguous()
    found = images / 255
    solarize_(found, torch.tensor([True, False]))
    assert worst(found[0], F.solarize(images[0], 128) / 255) < 1e-6
    assert torch.equal(found[1], images[1] / 255)


@pytest.mark.parametrize("side", [8, 32, 64, 96, 224])
def test_blur_is_torchvisions_up_to_the_borders(side):
    images = photographs(6, side, side)
    sigma, chosen = torch.tensor([0.1, 0.4, 0.9, 1.3, 2.0, 1.0]), torch.arange(6) < 5
    found, taps = images / 255, blur_taps(side, 2.0)
    blur_(found, sigma, chosen, 2.0)
    for i in range(5):
        assert worst(found[i], F.gaussian_blur(images[i] / 255, taps, sigma[i].item())) < 1e-5
        assert mean_error(found[i], F.gaussian_blur(images[i], taps, sigma[i].item()) / 255) < LEVEL
    assert torch.equal(found[5], images[5] / 255)


@pytest.mark.parametrize("side", [16, 32, 96])
@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.3, 2.0])
def test_blur_is_the_whole_gaussian_of_scipy(side, sigma):
    """Scipy's kernel reaches ten sigma here; ours leaves out what is beyond three."""
    images = photographs(2, side, side) / 255
    found = images.clone()
    blur_(found, torch.tensor([sigma, sigma]), torch.tensor([True, True]), 2.0)
    expected = gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=10)
    assert np.abs(found.numpy() - expected).max() < 0.02
    assert np.abs(found.numpy() - expected).mean() < 0.002


def test_blur_at_32_pixels_removes_as_much_noise_as_the_whole_kernel():
    noise = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = noise.clone()
    blur_(found, torch.full((8,), 2.0), torch.ones(8, dtype=torch.bool), 2.0)
    whole = gaussian_filter(noise.numpy(), (0, 0, 2.0, 2.0), mode="mirror", truncate=10)
    assert float(found.std()) == pytest.approx(float(whole.std()), rel=0.02)


def test_the_kernel_reaches_three_sigma_and_no_farther_than_the_side():
    assert [blur_taps(side, 2.0) for side in (1, 2, 8, 16, 32, 96, 224)] == [1, 1, 7, 13, 13, 13, 23]
    assert [blur_taps(224, sigma) for sigma in (0.1, 3.7, 5.0, 100.0)] == [23, 25, 31, 223]
    for side in (1, 2, 3):
        image = torch.rand(1, 3, side, side)
        blurred = image.clone()
        blur_(blurred, torch.tensor([2.0]), torch.tensor([True]), 2.0)
        assert torch.isfinite(blurred).all()
        assert side > 2 or torch.equal(blurred, image)


def test_the_blur_of_an_image_does_not_depend_on_the_other_images_of_the_batch():
    images, rows = photographs(16, 32, 32), torch.arange(16)
    view = View(gaussian_blur=1.0)
    together = make_view(images, view, 32, rows=rows, **KEY)
    for row in (0, 7):
        alone = make_view(images[row : row + 1], view, 32, rows=rows[row : row + 1], **KEY)
        assert torch.allclose(together[row : row + 1], alone, atol=1e-6)


# The whole view


def by_torchvision(image, found_parameters, view, size):
    """One image through torchvision's functions, with the parameters that ours sampled."""
    box, flip, jittered, factors, order, gray, blurred, sigma, solarized = found_parameters
    image = F.resized_crop(image, *box, [size, size], antialias=True)
    if flip:
        image = F.horizontal_flip(image)
    if jittered:
        for which in order:
            operation = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue][which]
            image = operation(image, factors[which])
    if gray:
        image = F.rgb_to_grayscale(image, 3)
    if blurred:
        image = F.gaussian_blur(image, blur_taps(size, view.sigma[1]), sigma)
    if solarized:
        image = F.solarize(image, 0.5 if image.is_floating_point() else 128)
    return image if image.is_floating_point() else image / 255


def parameters_of(view, height, width, rows):
    """The documented order of a row's random numbers, read independently of the package."""
    from ssl_lightning.counter_rng import Purpose, uniform

    u = uniform(KEY["seed"], Purpose.VIEW, KEY["epoch"], rows, view=KEY["number"], count=36).double()
    boxes = crop_boxes(view, rows * 0 + height, rows * 0 + width, rows=rows, **KEY).tolist()
    for i, box in enumerate(boxes):
        n = u[i, 22:].tolist()
        span = [(max(0.0, 1 - s), 1 + s) for s in view.color_jitter[:3]] + [
            (-view.color_jitter[3], view.color_jitter[3])
        ]
        factors = [low + (high - low) * x for (low, high), x in zip(span, n[2:6], strict=True)]
        order = ORDERS[int(n[6] * 24)].tolist()
        sigma = view.sigma[0] + (view.sigma[1] - view.sigma[0]) * n[9]
        yield (
            box,
            n[0] < view.horizontal_flip,
            n[1] < view.color_jitter_p,
            factors,
            order,
            n[7] < view.grayscale,
            n[8] < view.gaussian_blur,
            sigma,
            n[10] < view.solarize,
        )


@pytest.mark.parametrize("view", [View(), STRONG, View(color_jitter=(0.4, 0.4, 0.2, 0.5), scale=(0.05, 0.14))], ids=str)
def test_a_whole_view_is_torchvisions_chain_on_floats(view):
    images, rows = photographs(64, 32, 32), torch.arange(64) * 5 + 2
    found = make_view(images, view, 32, rows=rows, **KEY)
    for i, parameters in enumerate(parameters_of(view, 32, 32, rows)):
        expected = by_torchvision(images[i] / 255, parameters, view, 32)
        assert mean_error(found[i], expected) < 1e-5
        near_threshold = ((expected - 0.5).abs() < 1e-3) & bool(parameters[-1])  # solarize jumps there
        assert worst(found[i][~near_threshold], expected[~near_threshold]) < 1e-3


def test_a_whole_view_is_nearer_to_exact_maths_than_torchvisions_own_on_uint8():
    images, rows = photographs(64, 32, 32), torch.arange(64)
    found = make_view(images, View(), 32, rows=rows, **KEY)
    ours, theirs = [], []
    for i, parameters in enumerate(parameters_of(View(), 32, 32, rows)):
        rounded = by_torchvision(images[i], parameters, View(), 32)
        ours.append(mean_error(found[i], rounded))
        theirs.append(mean_error(by_torchvision(images[i] / 255, parameters, View(), 32), rounded))
    assert sum(ours) / 64 == pytest.approx(sum(theirs) / 64, rel=1e-3)  # all that is left is torchvision's rounding
    assert sum(ours) / 64 < 1.5 * LEVEL


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (120, 160, 64)])
def test_crops_cut_one_by_one_and_finished_together_are_the_whole_view(height, width, size):
    images, rows = photographs(20, height, width), torch.arange(20) + 100
    cut = CropSpec([View(), STRONG], size, KEY["seed"])  # the second view is number 1
    alone = [cut([image], Task(KEY["epoch"], row.reshape(1)))[1] for image, row in zip(images, rows, strict=True)]
    crops = torch.cat(alone)
    assert crops.dtype == torch.uint8
    before = crops.clone()
    finished = finish_crops(crops, STRONG, rows=rows, **KEY)
    whole = make_view(images, STRONG, size, rows=rows, **KEY)
    # a value beside solarize's threshold may fall on the other side after rounding to uint8
    assert (finished - whole).abs().flatten().quantile(0.98) < 5 * LEVEL
    assert mean_error(finished, whole) < 2 * LEVEL
    assert torch.equal(crops, before)


@pytest.mark.parametrize("view", [STRONG, View(degrees=20.0, translate=0.1)], ids=["colors", "affine"])
def test_a_row_looks_the_same_in_any_company_and_any_order(view):
    images, rows = photographs(300, 32, 32), torch.arange(300)
    together = make_view(images, view, 32, rows=rows, **KEY)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert worst(make_view(images[shuffled], view, 32, rows=rows[shuffled], **KEY), together[shuffled]) < 1e-5
    for i in (0, 17, 299):
        assert worst(make_view(images[i : i + 1], view, 32, rows=rows[i : i + 1], **KEY)[0], together[i]) < 1e-5


@pytest.mark.parametrize("view", [STRONG, View(degrees=20.0, translate=0.1)], ids=["colors", "affine"])
def test_views_made_together_are_those_made_one_by_one(view):
    images, rows = photographs(100, 32, 32), torch.arange(100)
    key = {name: value for name, value in KEY.items() if name != "number"} | {"rows": rows}
    together = make_views(images, view, 24, numbers=range(1, 4), **key)
    alone = torch.cat([make_view(images, view, 24, number=number, **key) for number in (1, 2, 3)])
    assert worst(together, alone) < 1e-5


@pytest.mark.parametrize("changed", ["seed", "epoch", "number", "rows"])
def test_seed_epoch_row_and_number_each_change_the_view(changed):
    images, rows = photographs(1, 32, 32).expand(40, 3, 32, 32), torch.arange(40)
    key = {"rows": rows, **KEY}
    other = key | {changed: key[changed] + 1000}
    difference = make_view(images, View(), 32, **key) - make_view(images, View(), 32, **other)
    assert (difference.abs().mean((1, 2, 3)) > LEVEL).all()


def test_nothing_touches_the_images_or_the_global_generator():
    images, rows = photographs(16, 32, 32), torch.arange(16)
    before, state = images.clone(), torch.get_rng_state()
    make_view(images, STRONG, 32, rows=rows, **KEY)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_autocast_does_not_coarsen_a_view():
    images, rows = photographs(16, 32, 32), torch.arange(16)
    whole, crops = make_view(images, STRONG, 32, rows=rows, **KEY), finish_crops(images, STRONG, rows=rows, **KEY)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(make_view(images, STRONG, 32, rows=rows, **KEY), whole)
        assert torch.equal(finish_crops(images, STRONG, rows=rows, **KEY), crops)


def test_probabilities_are_met_and_values_stay_in_range():
    rows = torch.arange(2000)
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).view(1, 1, 1, 32).expand(2000, 3, 32, 32)
    still = View(scale=(1.0, 1.0), ratio=(1.0, 1.0), color_jitter_p=0.0, grayscale=0.0)
    flipped = make_view(ramp, still, 32, rows=rows, **KEY)[:, 0, 0, 0] > 0.5
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.05)
    colored = photographs(1, 8, 8).expand(2000, 3, 8, 8)
    gray = View(color_jitter_p=0.0, grayscale=0.2, horizontal_flip=0.0)
    channels = make_view(colored, gray, 8, rows=rows, **KEY)
    lost = (channels[:, 0] - channels[:, 2]).abs().amax((1, 2)) < 1e-6
    assert lost.float().mean().item() == pytest.approx(0.2, abs=0.04)
    strong = make_view(colored, STRONG, 8, rows=rows, **KEY)
    assert strong.min() >= -1e-5
    assert strong.max() <= 1 + 1e-5
    assert strong.isfinite().all()


def test_a_view_that_changes_nothing_gives_the_image_back():
    images, rows = photographs(7, 32, 32), torch.arange(7)
    nothing = View(scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip=0.0, color_jitter_p=0.0, grayscale=0.0)
    assert worst(make_view(images, nothing, 32, rows=rows, **KEY), images / 255) < 1e-6


def test_moves_are_whole_pixels_within_their_range():
    dot = torch.zeros(500, 3, 21, 21, dtype=torch.uint8)
    dot[:, :, 10, 10] = 255
    view = View(
        scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip=0.0, color_jitter_p=0.0, grayscale=0.0, translate=0.2
    )
    found = make_view(dot, view, 21, rows=torch.arange(500), **KEY)[:, 0].flatten(1)
    assert (found.amax(1) > 0.999).all()
    down, right = found.argmax(1) // 21 - 10, found.argmax(1) % 21 - 10
    assert {down.min().item(), right.min().item()} == {-4}
    assert {down.max().item(), right.max().item()} == {4}


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_of_none_or_one_is_a_batch(count):
    rows = torch.arange(count)
    assert make_view(photographs(count, 16, 16), STRONG, 8, rows=rows, **KEY).shape == (count, 3, 8, 8)
    assert finish_crops(photographs(count, 8, 8), STRONG, rows=rows, **KEY).shape == (count, 3, 8, 8)


# The kinds of view


def test_kinds_unroll_in_order():
    kinds = [View(count=2), View(count=3, size=0.5)]
    assert [view.size for view in expand(kinds)] == [1.0, 1.0, 0.5, 0.5, 0.5]
    assert {view.count for view in expand(kinds)} == {1}
    assert [view.pixels(224) for view in kinds] == [224, 112]
    assert View(size=96 / 224).pixels(224) == 96


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"size": 0.0},
        {"size": 224.0},
        {"size": float("nan")},
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, 0.2)},
        {"scale": (0.5, 1.2)},
        {"ratio": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"horizontal_flip": 1.5},
        {"color_jitter": (-0.1, 0.4, 0.4, 0.1)},
        {"color_jitter": (0.4, 0.4, 0.4, 0.6)},
        {"color_jitter_p": -0.1},
        {"grayscale": 2.0},
        {"gaussian_blur": -1.0},
        {"sigma": (0.0, 2.0)},
        {"sigma": (2.0, 1.0)},
        {"solarize": 1.01},
        {"degrees": -5.0},
        {"translate": 1.5},
    ],
    ids=str,
)
def test_an_impossible_view_is_rejected_in_one_line_that_names_the_field(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=re.escape(f"found View.{name}={value}; expected ")) as caught:
        View(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_views():
    images, rows = photographs(64, 32, 40), torch.arange(64)
    for view in (STRONG, View(degrees=20.0, translate=0.1)):
        here = make_view(images, view, 24, rows=rows, **KEY)
        there = make_view(images.cuda(), view, 24, rows=rows.cuda(), **KEY)
        assert there.is_cuda
        assert mean_error(there.cpu(), here) < 0.1 * LEVEL
    assert mean_error(center_view(images.cuda(), 24, 0.875).cpu(), center_view(images, 24, 0.875)) < 0.5 * LEVEL
