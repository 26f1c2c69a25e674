"""demo: DeepCluster on real digits, evaluated against pixels and against its untrained self, in minutes on a laptop."""

import lightning.pytorch as pl
from lightning.pytorch.utilities.seed import isolate_rng

from ssl_lightning.callbacks import ProbeFeatures
from ssl_lightning.cli.main import CommandLine
from ssl_lightning.methods import RawPixels
from ssl_lightning.report.page import Section
from ssl_lightning.report.table import percent_table


def main(config: str = "demo", name: str = "demo", seed: int = 0, run_dir: str = "runs") -> None:
    """Train DeepCluster on real digits, evaluate it against pixels and its untrained self, and write a page to look at.

    Args:
        config: Another configuration to demonstrate, a file or a name.
        name: Name of the run.
        seed: Of everything.
        run_dir: Where runs live.

    Raises:
        UsageError: If the configuration is not there.
    """
    command = ["fit", "--config", config, "--run.name", name, "--run.dir", run_dir, "--seed_everything", str(seed)]
    line = CommandLine([*command, "--resume.policy", "restart"], quiet=True)
    rows = {"pixels": _evaluate_pixels(line)} | line.results()
    table = percent_table(rows, title="percent")
    line.report.write(lead=[Section("Pixels, untrained, trained, in percent", table)])
    print(f"\n{table}\n\nImages of the clusters, curves and numbers: {line.run.path / 'report' / 'index.html'}")


def _evaluate_pixels(line: CommandLine) -> dict[str, float]:
    """Raw pixels, by the same probes on the same images."""
    callbacks: list[pl.Callback] = line.trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    # without the listeners of the run, which keep the features of its network
    probes = [ProbeFeatures(each.probes) for each in callbacks if isinstance(each, ProbeFeatures)]
    data = line.datamodule
    pixels = RawPixels(preprocessing=data.preprocessing)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, callbacks=[*probes], enable_progress_bar=False, enable_model_summary=False
    )
    with isolate_rng():
        trainer.validate(pixels, datamodule=data, verbose=False)
    return {key.removeprefix("eval/"): float(value) for key, value in trainer.callback_metrics.items()}
