"""DiagnosticSignals: metrics that distinguish learning from collapse."""

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
"""Steps in which a prototype must be the nearest of some image to count as used."""


class DiagnosticSignals(pl.Callback):
    """Measure the last batch at every row of the metrics, from what the method's step returned beside its loss.

    - `embeddings` [B D] give `train/embedding_std` (0 collapsed, 1 spread) and `train/embedding_rank` (1 to D);
    - `scores` [B K] of a view give `train/prototypes_used`: the number of prototypes that were the nearest of any image
      in the last `WINDOW` steps, as a share of the expected number for as many uniform samples;
    - `codes` [B K] give `train/code_entropy` as a share of ln K;
    - `rows_per_prototype` and `queue_in_use` are logged unchanged;
    - `method.chance_loss`, where it is known, gives `train/loss_over_chance`; the views give `train/input_offset`, the
      distance of their mean from 0 or of their standard deviation from 1.

    All are means over processes; a resumed run logs the same rows.
    """

    def __init__(self) -> None:
        self.last_used = torch.empty(0, dtype=torch.int64)
        self._mean: MeanVector | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the state to the device of the model: process groups of GPUs reduce nothing else."""
        self.last_used = self.last_used.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the used prototypes; measure when a row is due."""
        if "scores" in outputs:
            self._record_used(outputs["scores"], trainer.global_step)
        if not row_is_due(trainer, batch_idx):
            return
        measured = _of_inputs(batch.views[0]) | _of_outputs(outputs)
        if "scores" in outputs:
            measured["prototypes_used"] = self._share_used(trainer, len(outputs["scores"]))
        signals = self._mean_over_processes(measured, pl_module.device)
        chance, loss = getattr(pl_module, "chance_loss", None), trainer.callback_metrics.get("train/loss")
        if chance is not None and loss is not None:
            signals["loss_over_chance"] = float(loss) / chance
        publish(trainer, {f"train/{name}": value for name, value in signals.items()})

    def state_dict(self) -> dict[str, Any]:
        """The last step of each prototype, on any process."""
        return {"last_used": self._last_used_anywhere()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.last_used = state_dict["last_used"].long().reshape(-1)

    def _record_used(self, scores: Float[Tensor, "B K"], step: int) -> None:
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
        expected = k * (1 - (1 - 1 / k) ** samples)
        return (last_used > trainer.global_step - WINDOW).sum() / expected

    def _mean_over_processes(self, signals: dict[str, float | Tensor], device: torch.device) -> dict[str, float]:
        if self._mean is None or len(self._mean.total) != len(signals) + 1:
            self._mean = MeanVector(len(signals)).to(device)
        self._mean.reset()
        self._mean.update(torch.stack([torch.as_tensor(value, device=device).float() for value in signals.values()]))
        return dict(zip(signals, self._mean.compute().tolist(), strict=True))


def _of_inputs(view: Float[Tensor, "B 3 h w"]) -> dict[str, float | Tensor]:
    std, mean = torch.std_mean(view.float())
    return {"input_offset": torch.maximum(mean.abs(), (1 - std).abs())}


def _of_outputs(outputs: dict[str, Any]) -> dict[str, float | Tensor]:
    signals = {name: outputs[name] for name in ("rows_per_prototype", "queue_in_use") if name in outputs}
    if "embeddings" in outputs:
        signals["embedding_std"] = feature_std(outputs["embeddings"])
        signals["embedding_rank"] = participation_ratio(outputs["embeddings"])
    if "codes" in outputs:
        codes = outputs["codes"].float()
        signals["code_entropy"] = torch.special.entr(codes).sum() / (len(codes) * math.log(codes.shape[1]))
    return signals
