"""Copies of images planted in a real collection: how many `data dedup` finds, and how many other pairs it reports.

    SSL_LIGHTNING_DATA=... python benchmarks/duplicates.py [--source 'uncurated-*.tar'] [--share 0.1] [--json PATH]

Of a share of the images, five copies are made: resized to 50 to 150 percent, compressed as JPEG of quality 40 to 90,
both, cropped by 5 percent, and mirrored. Recall is the share of copies that are in the group of their original.
Precision is the share of planted copies among all pairs of an original and another image of its group; natural
duplicates of the collection count against it unless they are within the pairs that are found without copies.
"""

import argparse
import io
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ssl_lightning.data.duplicates import BITS, DIFFERENCE, SIDE, components, mirrored, near_pairs
from ssl_lightning.data.hashing import difference_hash
from ssl_lightning.data.packs import open_unlabelled

KINDS = ("resized", "recompressed", "both", "cropped", "mirrored")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="uncurated-*.tar")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dataset, rng = open_unlabelled(options.source), random.Random(options.seed)
    hashes, thumbnails, origins, kinds = [], [], [], []

    def add(image, origin, kind):
        pixels = np.asarray(image.convert("RGB"))
        hashes.append(difference_hash(torch.from_numpy(pixels.copy()).permute(2, 0, 1)))
        thumbnails.append(np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(-1))
        origins.append(origin)
        kinds.append(kind)

    start = time.perf_counter()
    for row in range(len(dataset)):
        (pixels,), _ = dataset.read(torch.tensor([row]))
        image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
        add(image, row, "original")
        if rng.random() < options.share:
            for kind in KINDS:
                add(copied(image, kind, rng), row, kind)
    values, origin, kind = np.array(hashes, dtype=np.uint64), np.array(origins), np.array(kinds)
    hashed = time.perf_counter() - start
    start = time.perf_counter()
    table = np.stack(thumbnails)
    result = {"images": len(dataset), "copies_of_each_kind": int((kind == KINDS[0]).sum()), "seconds_to_hash": hashed}
    result["hash_and_thumbnails"] = found(values, table, origin, kind, DIFFERENCE)
    result["hash_alone"] = found(values, table, origin, kind, 255.0)
    result["seconds_to_compare"] = time.perf_counter() - start
    flipped = np.bitwise_count(
        mirrored(values)[kind == "mirrored"] ^ values[kind == "original"][origin[kind == "mirrored"]]
    )
    result["mirrored_within_bits_of_the_flipped_hash"] = float((flipped <= BITS).mean())
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def copied(image, kind, rng):
    """A copy of an image."""
    width, height = image.size
    if kind in ("resized", "both"):
        factor = rng.uniform(0.5, 1.5)
        image = image.resize((max(8, round(width * factor)), max(8, round(height * factor))), Image.Resampling.BICUBIC)
    if kind in ("recompressed", "both"):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=rng.randint(40, 90))
        image = Image.open(stream).convert("RGB")
    if kind == "cropped":
        image = image.crop((round(width * 0.05), round(height * 0.05), width, height))
    return ImageOps.mirror(image) if kind == "mirrored" else image


def found(values, table, origin, kind, difference):
    """Recall by kind, and the precision of pairs of different images."""
    own = kind == "original"
    alone = components(int(own.sum()), near_pairs(values[own], lambda rows: table[own][rows], BITS, difference))
    pairs = near_pairs(values, lambda rows: table[rows], BITS, difference)
    groups = components(len(values), pairs)
    of_original = np.empty(int(own.sum()), dtype=np.int64)
    of_original[origin[own]] = groups[own]
    recall = {each: float((groups[kind == each] == of_original[origin[kind == each]]).mean()) for each in KINDS}
    different = origin[pairs[:, 0]] != origin[pairs[:, 1]]
    natural = alone[origin[pairs[:, 0]]] == alone[origin[pairs[:, 1]]]
    false = int((different & ~natural).sum())
    return {
        "recall": recall,
        "precision": 1 - false / max(len(pairs), 1),
        "pairs": len(pairs),
        "pairs_of_different_images_found_without_copies_too": int((different & natural).sum()),
    }


if __name__ == "__main__":
    main()
