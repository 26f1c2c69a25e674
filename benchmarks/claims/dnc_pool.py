"""The pool of Divide and Contrast: long-tailed images of four domains, and labeled ones of each for evaluation."""

import io
import json
import sys
import tarfile
from typing import IO, cast

import numpy as np
import torch
from cells import write_tar
from PIL import Image, ImageOps

from ssl_lightning.data.packs import locate
from ssl_lightning.data.probe_sets import ProbeSet

SHARES = {"cifar10": 0.4, "uncurated": 0.3, "flowers": 0.15, "omniglot": 0.15}
PACKS = {"cifar10": "cifar10.tar.xz", "uncurated": "uncurated-*.tar"}
TAIL = 10
"""How many times the smallest class the largest is."""
SIDE, REFERENCE, TEST = 32, 2_000, 1_000
"""Pixels of the kept images; training and test images of a domain's probes, at most."""


def write_images(folder, count):
    """The pool, `train/<domain>/<image>`, and a tar file of each domain for evaluating; what is there is left alone."""
    if (folder / "pool.tar").exists():
        return
    pool = {}
    for domain, share in SHARES.items():
        classes, required = read_domain(domain), round(share * count)
        train = [kept[0] for kept in classes.values()]
        choose = at_random if domain == "uncurated" else long_tail
        for name, size, kept in zip(classes, choose([len(kept) for kept in train], required), train, strict=True):
            pool |= {f"train/{domain}/{name}-{place:05d}.png": kept[place] for place in range(size)}
        evaluations = {}
        for split, most, part in (("train", REFERENCE, 0), ("test", TEST, 1)):
            places = sorted((place, name) for name in classes for place in range(len(classes[name][part])))
            evaluations |= {
                f"{split}/{name}/{place:05d}.png": classes[name][part][place] for place, name in places[:most]
            }
        write_tar(folder / f"{domain}.tar", {name: square(content) for name, content in evaluations.items()})
    write_tar(folder / "pool.tar", {name: square(content) for name, content in pool.items()})


def read_domain(domain):
    """For each class the files of its training and of its test images, each in random order.

    Where a pack has no such splits, every fifth image of a class is for test. The classes of uncurated images are
    their kinds.
    """
    files = {}
    for pack in locate(PACKS.get(domain, f"{domain}.tar.xz")):
        with tarfile.open(pack) as file:
            files |= {
                member.name: cast(IO[bytes], file.extractfile(member)).read() for member in file if member.isfile()
            }
    classes = {}
    for name in sorted(files):
        if domain == "uncurated":
            if not name.endswith(".json"):
                continue
            split, label, name = "", json.loads(files[name])["kind"], name.replace(".json", ".jpg")
        else:
            split, label, _ = name.split("/")
        train, test = classes.setdefault(label, ([], []))
        own = domain in ("cifar10", "flowers")
        is_test = split == "test" if own else (len(train) + len(test)) % 5 == 4
        (test if is_test else train).append(files[name])
    random = np.random.default_rng(0)
    for label in sorted(classes):
        classes[label] = tuple([kept[place] for place in random.permutation(len(kept))] for kept in classes[label])
    return dict(sorted(classes.items()))


def long_tail(available, count):
    """How many of each class: the largest class most, the smallest a tenth of that, the others in geometric order."""
    order = np.argsort([-size for size in available], kind="stable")
    weights = TAIL ** -(np.arange(len(order)) / (len(order) - 1))
    ends = np.round(count * np.cumsum(weights) / weights.sum()).astype(int)
    sizes = dict(zip(order.tolist(), np.diff(ends, prepend=0).tolist(), strict=True))
    short = [place for place, size in sizes.items() if size > available[place]]
    if short:
        sys.exit(f"found {available[short[0]]} images of a class; expected {sizes[short[0]]}: lower --images")
    return [sizes[place] for place in range(len(available))]


def at_random(available, count):
    """How many of each class in a random choice of images."""
    if count > sum(available):
        sys.exit(f"found {sum(available)} images; expected {count}: lower --images")
    every_one = np.repeat(np.arange(len(available)), available)
    return np.bincount(np.random.default_rng(0).permutation(every_one)[:count], minlength=len(available)).tolist()


def square(content):
    """The middle of an image in a small PNG file."""
    with Image.open(io.BytesIO(content)) as image:
        small = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    small.save(written, "PNG", compress_level=1)
    return written.getvalue()


def open_probes(folder):
    """For each domain images and labels of both splits, and how many classes there are."""
    found = {}
    for domain in SHARES:
        path = str(folder / f"{domain}.tar")
        train, test = ProbeSet(f"{path}/train", f"{path}/test").open()
        found[domain] = (every(train), every(test), len(train.classes))
    return found


def every(table):
    """All images, which have one size, and their labels."""
    images, _ = table.read(torch.arange(len(table)))
    return cast(torch.Tensor, images), table.labels
