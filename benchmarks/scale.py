"""What SEER's sizes ask of a GPU, worked out on shapes alone: nothing is computed, no GPU is needed.

    python benchmarks/scale.py [--gpus 512] [--batch-size 8192] [--json PATH]

The networks of configs/scale/seer_*.yaml are built on the meta device. FLOPs are counted by
torch.utils.flop_counter (a multiplication and an addition are two), what autograd keeps by hooks on saved tensors.
docs/scale.md explains the rows.
"""

import argparse
import json
from pathlib import Path

import torch
import yaml
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ssl_lightning.models import TimmBackbone
from ssl_lightning.models.checkpointed import stages
from ssl_lightning.models.heads import Projector, Prototypes

CONFIGS = sorted(
    (Path(__file__).parents[1] / "configs" / "scale").glob("seer_*.yaml"),
    key=lambda path: int(path.stem.split("_")[1].removesuffix("gf")),
)
IMAGES = 1_000_000_000
SUSTAINED = 100e12
"""FLOPs a second that a GPU is taken to sustain: a third of an A100's peak in bfloat16."""
GIB = 2**30


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.batch_size % options.gpus:
        parser.error(f"found --batch-size {options.batch_size} for {options.gpus} GPUs; expected a multiple of them")
    figures = {path.stem: work_out(path, options.gpus, options.batch_size) for path in CONFIGS}
    names = list(next(iter(figures.values())))
    print("| |", " | ".join(figures), "|\n|---|", " | ".join("---:" for _ in figures), "|", sep="")
    for name in names:
        print(f"| {name} |", " | ".join(f"{figure[name]:,.4g}" for figure in figures.values()), "|")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def work_out(path, gpus, batch_size):
    """All figures of one config; keys are the rows of the table."""
    config = yaml.safe_load(path.read_text())
    model, crops = config["model"]["init_args"], crops_of(config["data"]["init_args"])
    with torch.device("meta"):
        trunk = TimmBackbone(model["backbone"]["init_args"]["name"]).build()
        head = Projector(trunk.num_features, model["hidden"], model["projection"], model["projector_norm"])
        prototypes = Prototypes(model["num_prototypes"], model["projection"])
    parameters = [sum(p.numel() for p in module.parameters()) for module in (trunk, head, prototypes)]
    forward = {size: flops(trunk, size) for _, size in crops}
    views = sum(count for count, _ in crops)
    image = sum(count * forward[size] for count, size in crops) + views * flops_of_head(head, prototypes)
    own = batch_size // gpus
    between, within, everything = zip(*(kept_bytes(trunk, count * own, size) for count, size in crops), strict=True)
    scores = 3 * views * own * model["num_prototypes"] * 4  # of all views: scores, their softmax, its gradient
    units = [*blocks(trunk), head, prototypes]  # each is gathered by itself
    gathered = 3 * max(sum(p.numel() for p in unit.parameters()) for unit in units) * 4
    copies = 2 * sum(parameters)
    states = 12 * sum(parameters) / gpus
    step = 4 * image * own  # forward, its repetition, and a backward pass of twice that
    return {
        "trunk, million parameters": parameters[0] / 1e6,
        "head and prototypes, million": sum(parameters[1:]) / 1e6,
        "forward of a 224-pixel crop, GFLOP": forward[224] / 1e9,
        "forward of an image's crops, GFLOP": image / 1e9,
        "step of one GPU, TFLOP": step / 1e12,
        "weights, gradients, momentum unsharded, GiB": 12 * sum(parameters) / GIB,
        "the same of one GPU, GiB": states / GIB,
        "units gathered at once, GiB": gathered / GIB,
        "weights in bfloat16, GiB": copies / GIB,
        "kept between blocks, GiB": sum(between) / GIB,
        "kept within a block, GiB": max(within) / GIB,
        "scores of prototypes, GiB": scores / GIB,
        "one GPU in all, GiB": (states + gathered + copies + sum(between) + max(within) + scores) / GIB,
        "kept without checkpointing, GiB": sum(everything) / GIB,
        "days for a billion images": IMAGES / batch_size * step / SUSTAINED / 86400,
    }


def crops_of(data):
    """Numbers and sides of crops in pixels."""
    return [(view["count"], round(view.get("size", 1.0) * data["image_size"])) for view in data["views"]]


def flops(network, size):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops()


def flops_of_head(head, prototypes):
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return 2 * (sum(layer.weight.numel() for layer in linear) + prototypes.weight.numel())


def kept_bytes(network, count, size):
    """Of so many crops in bfloat16: kept between blocks, kept by the block that keeps most, kept without repetition."""
    inputs = {}
    hooks = [
        block.register_forward_pre_hook(lambda b, args: inputs.__setitem__(b, args[0].detach()))
        for block in blocks(network)
    ]
    images = torch.empty(count, 3, size, size, device="meta", dtype=torch.bfloat16)
    everything = saved(network, images)
    for hook in hooks:
        hook.remove()
    between = sum(x.untyped_storage().nbytes() for x in inputs.values()) + saved(network.body.stem, images)
    return between, max(saved(block, x) for block, x in inputs.items()), everything


def saved(module, x):
    """Bytes of every storage that autograd keeps, each once and without the weights."""
    found = {}

    def note(tensor):
        found[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage()._cdata for p in module.bfloat16().train().parameters()}
    with saved_tensors_hooks(note, lambda tensor: tensor):
        out = module(x.requires_grad_())
    del out
    return sum(size for key, size in found.items() if key not in weights)


def blocks(network):
    return [block for _, stage in stages(network) for block in stage.children()]


if __name__ == "__main__":
    main()
