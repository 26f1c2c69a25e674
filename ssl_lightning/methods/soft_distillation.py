"""Soft distillation: a network from scratch learns the class distribution of a trained teacher. A control arm."""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ssl_lightning.counter_rng import Purpose, separate_rng
from ssl_lightning.errors import UsageError
from ssl_lightning.functional.soft_targets import soft_target_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.methods.teachers import read_teacher
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.types import Batch


@runtime_checkable
class GivesLogits(Protocol):
    """The optional ability of a method that a teacher needs: `Supervised` and `RotationPrediction` have it."""

    def logits(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C"]:
        """A logit for each class of normalized images."""
        ...


class SoftDistillation(Method):
    """Train a network from scratch to the softened class distribution of its teacher for the same view.

    The control arm of ClusterFit (Yan, Misra, Gupta, Ghadiyaram, Mahajan, CVPR 2020, arXiv 1912.03330, section 4): it
    too trains a second network on the output of a first one, but keeps the classes of the first one's pretext task,
    where ClusterFit keeps the neighborhoods of its features. As in ClusterFit, the initial weights differ from those of
    a teacher of the same seed. The loss is that of Hinton, Vinyals, Dean 2015 (arXiv 1503.02531, equation 1):
    T^2 KL(teacher || student) at temperature T.

    The teacher is no submodule: it is read from its file when training starts, is neither optimized nor saved, and a
    finished run is loaded without it.

    Note:
        Soft targets alone, without the term of true labels that Hinton et al. add where there are any. A teacher is a
        method with `logits`; those of `RotationPrediction` are of the unrotated image, so its student learns the
        teacher's confidence that an image is upright.

    Args:
        teacher: Checkpoint of a finished run, made at the same image size, mean and standard deviation.
        num_classes: C, the classes of the teacher.
        temperature: T; Hinton et al. use 1 to 20.
        backbone: Description of the network; it need not be the teacher's.
        optimizer: By default the usual one of CIFAR-10: SGD, lr 0.1, Nesterov's momentum 0.9, weight decay 5e-4.
        schedule: Of the learning rate; None keeps it constant.
        decay_all: Weight decay for biases and normalization layers too.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: For numbers out of range.
    """

    def __init__(
        self,
        teacher: str,
        num_classes: int = 10,
        temperature: float = 4.0,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        ),
        schedule: Schedule | None = None,
        decay_all: bool = True,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        with separate_rng(Purpose.STUDENT):
            super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        if temperature <= 0 or num_classes < 2:
            raise UsageError(
                f"found temperature={temperature}, num_classes={num_classes}; expected a positive temperature and at "
                "least 2 classes"
            )
        self.teacher, self.num_classes, self.temperature = teacher, num_classes, temperature
        self.head = nn.Linear(self.backbone.num_features, num_classes)
        # in a list, which hides it from torch: neither optimizers nor checkpoints nor train() reach it
        self._teachers: list[Any] = []

    def stage_files(self) -> dict[str, str]:
        """See `Method.stage_files`."""
        return {"teacher": self.teacher}

    def setup(self, stage: str) -> None:
        """Read and validate the teacher.

        Raises:
            UsageError: For a missing file, a method without logits, another preprocessing or number of classes.
        """
        super().setup(stage)
        if stage != "fit":
            return
        self._teachers = [self._validated(read_teacher(self.teacher, "teacher", self))]

    def on_fit_start(self) -> None:
        """Move the teacher to the device of the student."""
        self._teachers[0].to(self.device, self.dtype)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Float[Tensor, "..."]]:
        """Divergence of the student's class distribution of the first view from the teacher's."""
        with torch.no_grad():
            targets = self._teachers[0].logits(batch.views[0])
        features = self(batch.views[0])
        logits = self.head(features)
        loss = soft_target_loss(logits, targets, self.temperature)
        return {"loss": loss, "embeddings": features.detach(), "scores": logits.detach()}

    @torch.no_grad()
    def _validated(self, teacher: Method) -> Method:
        """The teacher, which is in eval mode."""
        if not isinstance(teacher, GivesLogits):
            raise UsageError(
                f"found a {type(teacher).__name__} in {self.teacher}; expected a method with logits, such as "
                "Supervised or RotationPrediction: give --model.teacher a checkpoint of one"
            )
        side = self.preprocessing.image_size
        found = teacher.logits(torch.zeros(1, 3, side, side)).shape[1]
        if found != self.num_classes:
            raise UsageError(
                f"found num_classes={self.num_classes} and a teacher of {found} classes; expected the same: give "
                f"--model.num_classes {found}"
            )
        return teacher
