"""DiagnosticSignals: what tells a training that learns from one that collapses, in the rows that are written anyway."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist

from ssl_lightning.callbacks.mean_vector import MeanVector
from ssl_lightning.callbacks.publish import publish, row_is_due
from ssl_lightning.evaluation.rank import feature_std, participation_ratio
from ssl_lightning.processes import world

WINDOW = 100
"""Steps in which a prototype must have been the nearest of some image to count as used."""


class DiagnosticSignals(pl.Callback):
    """Measures the last batch at every row, from what the method's step returned beside its loss.

    - `embeddings` [B D] give `train/embedding_std` (0 collapsed, 1 spread) and `train/embedding_rank` (1 to D);
    - `scores` [B K] of a view give `train/prototypes_used`: how many were the nearest of any image in the last
      `WINDOW` steps, as a share of how many as many even draws would have reached;
    - `codes` [B K] give `train/code_entropy` as a share of ln K;
    - `rows_per_prototype` and `queue_in_use` are written as they are;
    - `method.chance_loss`, where it is known, gives `train/loss_over_chance`; the views give `train/input_offset`, how
      far their mean is from 0 or their standard deviation from 1.

    Means over processes; after a resume the rows are the same.
    """

    def __init__(self) -> None:
        self.last_used = torch.empty(0, dtype=torch.int64)
        self._mean: MeanVector | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What processes tell each other lies where their models are: groups of GPUs carry nothing else."""
        self.last_used = self.last_used.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note which prototypes were used; measure when a row is due."""
        if "scores" in outputs:
            self._note_used(outputs["scores"], trainer.global_step)
        if not row_is_due(trainer, batch_idx):
            return
        measured = _of_inputs(batch.views[0]) | _of_outputs(outputs)
        if "scores" in outputs:
            measured["prototypes_used"] = self._share_used(trainer, len(outputs["scores"]))
        signs = self._mean_over_processes(measured, pl_module.device)
        chance, loss = getattr(pl_module, "chance_loss", None), trainer.callback_metrics.get("train/loss")
        if chance is not None and loss is not None:
            signs["loss_over_chance"] = float(loss) / chance
        publish(trainer, {f"train/{name}": value for name, value in signs.items()})

    def state_dict(self) -> dict[str, Any]:
        """When each prototype was last used, on any process."""
        return {"last_used": self._last_used_anywhere()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint's."""
        self.last_used = state_dict["last_used"].long().reshape(-1)

    def _note_used(self, scores: Float[Tensor, "B K"], step: int) -> None:
        if len(self.last_used) != scores.shape[1]:
            self.last_used = torch.full((scores.shape[1],), -WINDOW, dtype=torch.int64, device=scores.device)
        self.last_used[scores.argmax(1)] = step

    def _last_used_anywhere(self) -> Int[Tensor, "K"]:
        last_used, group = self.last_used.clone(), world()
        if group is not None and len(last_used):
            dist.all_reduce(last_used, dist.ReduceOp.MAX, group)
        return last_used

    def _share_used(self, trainer: pl.Trainer, batch_size: int) -> Float[Tensor, ""]:
        last_used, k = self._last_used_anywhere(), len(self.last_used)
        samples = batch_size * trainer.world_size * min(WINDOW, trainer.global_step)
        reached = k * (1 - (1 - 1 / k) ** samples)
        return (last_used > trainer.global_step - WINDOW).sum() / reached

    def _mean_over_processes(self, signs: dict[str, float | Tensor], device: torch.device) -> dict[str, float]:
        if self._mean is None or len(self._mean.total) != len(signs) + 1:
            self._mean = MeanVector(len(signs)).to(device)
        self._mean.reset()
        self._mean.update(torch.stack([torch.as_tensor(sign, device=device).float() for sign in signs.values()]))
        return dict(zip(signs, self._mean.compute().tolist(), strict=True))


def _of_inputs(view: Float[Tensor, "B 3 h w"]) -> dict[str, float | Tensor]:
    deviation, mean = torch.std_mean(view.float())
    return {"input_offset": torch.maximum(mean.abs(), (1 - deviation).abs())}


def _of_outputs(outputs: dict[str, Any]) -> dict[str, float | Tensor]:
    signs = {name: outputs[name] for name in ("rows_per_prototype", "queue_in_use") if name in outputs}
    if "embeddings" in outputs:
        signs["embedding_std"] = feature_std(outputs["embeddings"])
        signs["embedding_rank"] = participation_ratio(outputs["embeddings"])
    if "codes" in outputs:
        codes = outputs["codes"].float()
        signs["code_entropy"] = torch.special.entr(codes).sum() / (len(codes) * math.log(codes.shape[1]))
    return signs
