"""LARC and LARS: rates in proportion to |weights| / |gradient|, in the two conventions of this literature.

The arithmetic is timm's `Lars`; what differs, and must not be mixed up, is which tensors are adapted, the trust
coefficient, and whether the local rate is clipped.
"""

from collections.abc import Iterable
from typing import Any

from timm.optim import Lars


class LARC(Lars):
    """SwAV's, DeepCluster-v2's and SEER's: every tensor is adapted, biases and normalization too; nothing is clipped.

    g <- (g + wd p) * trust |p| / (|g| + wd |p| + 1e-8), then SGD with momentum at the scheduled rate. Tensors without
    a gradient are skipped. As NVIDIA apex's LARC with clip=False, which those papers train with.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate; the papers' 4.8 at batch 4096, 0.6 at 256, 9.6 at SEER's 8192.
        momentum: Of SGD.
        weight_decay: wd; the papers' 1e-6, SEER's 1e-5.
        trust: Coefficient of the local rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.6,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 0.001,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,  # type: ignore[arg-type]  # timm's own default is a whole number
            weight_decay=weight_decay,  # type: ignore[arg-type]
            trust_coeff=trust,
            always_adapt=True,
        )


class LARS(Lars):
    """BYOL's, MoCLR's and solo-learn's: only tensors with weight decay are adapted; the rest is plain SGD.

    To leave out biases and normalization layers, as those recipes do, set the method's `decay_all` to false.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate at the run's batch size.
        momentum: Of SGD.
        weight_decay: The papers' 1.5e-6.
        trust: Coefficient of the local rate: the papers' 0.001; solo-learn's CIFAR recipes have 0.02.
        clip: Never let the local rate exceed the global one, as solo-learn's recipes do.
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
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,  # type: ignore[arg-type]  # timm's own default is a whole number
            weight_decay=weight_decay,  # type: ignore[arg-type]
            trust_coeff=trust,
            trust_clip=clip,
        )
