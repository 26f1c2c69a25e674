"""Soft distillation: a network from scratch learns what a finished one says of each image. A control arm."""

from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ssl_lightning.counter_rng import Purpose, separate_rng
from ssl_lightning.errors import UsageError
from ssl_lightning.functional.soft_targets import soft_target_loss
from ssl_lightning.methods.method import RGB, Method
from ssl_lightning.methods.teachers import read_teacher
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.types import Batch


@runtime_checkable
class GivesLogits(Protocol):
    """What a teacher needs beside what every method has: `Supervised` and `RotationPrediction` have it."""

    def logits(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C"]:
        """One logit a class of normalized images."""
        ...


class SoftDistillation(Method):
    """Train a network from scratch to the softened class distribution that its teacher gives the same view.

    The control arm of ClusterFit (Yan, Misra, Gupta, Ghadiyaram, Mahajan, CVPR 2020, arXiv 1912.03330, section 4): it
    too trains a second network on what a first one says, but keeps the classes of the first one's pretext task, where
    ClusterFit keeps the neighborhoods of its features; like ClusterFit's, its first weights are not those that the
    teacher of the same seed had. The loss is that of Hinton, Vinyals, Dean 2015
    (arXiv 1503.02531, equation 1): T^2 KL(teacher || student) at temperature T.

    The teacher is no part of this network: it is read from its file when training starts, is neither optimized nor
    saved, and a finished run is loaded without it.

    Note:
        Soft targets alone, without the term of true labels that Hinton et al. add where there are any. Teachers are
        what has `logits`; of `RotationPrediction` those of the image as it is, so its student learns how sure the
        teacher is that an image is upright.

    Args:
        teacher: Checkpoint of a finished run, made at the same image size, mean and standard deviation.
        num_classes: C, classes of the teacher.
        temperature: T; Hinton et al. use 1 to 20.
        backbone: Description of the network; it need not be the teacher's.
        optimizer: By default the usual one of CIFAR-10: SGD, lr 0.1, Nesterov's momentum 0.9, weight decay 5e-4.
        schedule: Of the learning rate; None keeps it constant.
        decay_all: Weight decay for biases and normalization layers too.
        image_size: Side of the images of the run, in pixels.
        mean: Mean of the images' channels as fractions 0..1.
        std: Their standard deviation.

    Raises:
        ValueError: For numbers out of range.
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
        image_size: int = 32,
        mean: RGB = (0.5, 0.5, 0.5),
        std: RGB = (0.25, 0.25, 0.25),
    ) -> None:
        with separate_rng(Purpose.STUDENT):
            super().__init__(backbone, optimizer, schedule, image_size, mean, std, decay_all=decay_all)
        if temperature <= 0 or num_classes < 2:
            raise UsageError(
                f"found temperature={temperature}, num_classes={num_classes}; expected a positive temperature and at "
                "least 2 classes"
            )
        self.teacher, self.num_classes, self.temperature = teacher, num_classes, temperature
        self.head = nn.Linear(self.backbone.num_features, num_classes)
        # in a list, where torch sees no submodule: neither optimizers nor checkpoints nor train() reach it
        self._teachers: list[Any] = []

    def stage_files(self) -> dict[str, str]:
        """See `Method.stage_files`."""
        return {"teacher": self.teacher}

    def setup(self, stage: str) -> None:
        """Read the teacher for training, and reject one that does not suit.

        Raises:
            ValueError: For a file that is not there or no checkpoint, a method without logits, one that was trained on
                images of other size or normalization, or another number of classes.
        """
        super().setup(stage)
        if stage != "fit":
            return
        self._teachers = [self._suited(read_teacher(self.teacher, "teacher", self))]

    def on_fit_start(self) -> None:
        """The teacher goes where the student is."""
        self._teachers[0].to(self.device, self.dtype)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Float[Tensor, "..."]]:
        """How far the student's distribution of the first view is from the teacher's."""
        with torch.no_grad():
            targets = self._teachers[0].logits(batch.views[0])
        features = self(batch.views[0])
        logits = self.head(features)
        loss = soft_target_loss(logits, targets, self.temperature)
        return {"loss": loss, "embeddings": features.detach(), "scores": logits.detach()}

    @torch.no_grad()
    def _suited(self, teacher: Method) -> Method:
        """The teacher, if it can teach this student; it is in eval mode."""
        if not isinstance(teacher, GivesLogits):
            raise UsageError(
                f"found a {type(teacher).__name__} in {self.teacher}; expected a method with logits, such as "
                "Supervised or RotationPrediction: give --model.teacher a checkpoint of one"
            )
        images = torch.zeros(1, 3, self.image_size, self.image_size)
        found = cast(GivesLogits, teacher).logits(images).shape[1]
        if found != self.num_classes:
            raise UsageError(
                f"found num_classes={self.num_classes} and a teacher of {found} classes; expected the same: give "
                f"--model.num_classes {found}"
            )
        return teacher
