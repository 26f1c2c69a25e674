"""LARC and LARS: learning rates proportional to |weights| / |gradient|, in the two conventions of the literature.

The arithmetic is that of timm's `Lars`. The conventions differ in the adapted tensors, the trust coefficient, and the
clipping of the local rate; they must not be mixed.
"""

import math
from collections.abc import Iterable
from typing import Any

from timm.optim import Lars

from ssl_lightning.errors import UsageError


class LARC(Lars):
    """The convention of SwAV, DeepCluster-v2 and SEER: all tensors are adapted, including biases; no clipping.

    g <- (g + wd p) * trust |p| / (|g| + wd |p| + 1e-8), then SGD with momentum at the scheduled learning rate. Tensors
    without a gradient are skipped. This is the LARC of NVIDIA apex with clip=False, with which these papers train.

    Args:
        params: Parameters or groups of parameters.
        lr: Learning rate; in the papers 4.8 at batch 4096, 0.6 at 256, 9.6 at 8192 (SEER).
        momentum: Momentum of SGD.
        weight_decay: wd; 1e-6 in the papers, 1e-5 in SEER.
        trust: Coefficient of the local learning rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.6,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 0.001,
    ) -> None:
        _check(self, lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust)
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,  # type: ignore[arg-type]  # timm annotates an int
            weight_decay=weight_decay,  # type: ignore[arg-type]
            trust_coeff=trust,
            always_adapt=True,
        )


class LARS(Lars):
    """The convention of BYOL, MoCLR and solo-learn: only tensors with weight decay are adapted; the rest is plain SGD.

    To exclude biases and normalization layers, as these recipes do, set the method's `decay_all` to false.

    Args:
        params: Parameters or groups of parameters.
        lr: Learning rate at the batch size of the run.
        momentum: Momentum of SGD.
        weight_decay: 1.5e-6 in the papers.
        trust: Coefficient of the local learning rate: 0.001 in the papers, 0.02 in solo-learn's CIFAR recipes.
        clip: Limit the local learning rate to the global one, as solo-learn's recipes do.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.3,
        momentum: float = 0.9,
        weight_decay: float = 1.5e-6,
        trust: float = 0.001,
        clip: bool = False,
    ) -> None:
        _check(self, lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust)
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,  # type: ignore[arg-type]  # timm annotates an int
            weight_decay=weight_decay,  # type: ignore[arg-type]
            trust_coeff=trust,
            trust_clip=clip,
        )


def _check(optimizer: Lars, **options: float) -> None:
    for name, value in options.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"found {type(optimizer).__name__} {name}={value}; expected 0 or more")
    if options["momentum"] >= 1:
        found = f"{type(optimizer).__name__} momentum={options['momentum']}"
        raise UsageError(f"found {found}; expected a fraction below 1, such as 0.9")
