"""The table of subcommands: names, modules and help."""

from dataclasses import dataclass

LIGHTNING = "ssl_lightning.cli.main"
"""Module of the subcommands that LightningCLI parses."""


@dataclass(frozen=True)
class Subcommand:
    """A subcommand of `ssl-lightning`.

    Attributes:
        name: As typed; of a group, such as `data`, the two words.
        module: Import path of the module with its `main`.
        help: One line.
        takes_folders: Whether it takes several folders one after the other, as a shell writes them; `main` gets a list.
        first_option: The option that a first argument without dashes gives, or all of them where it takes several;
            empty where there is none.
        flags: Options that stand for true without a value.
    """

    name: str
    module: str
    help: str
    takes_folders: bool = False
    first_option: str = ""
    flags: tuple[str, ...] = ()

    @property
    def is_lightnings(self) -> bool:
        """Whether LightningCLI parses its options: a model, a data module and a trainer."""
        return self.module == LIGHTNING


SUBCOMMANDS = {
    subcommand.name: subcommand
    for subcommand in (
        Subcommand("fit", LIGHTNING, "train a method; the same command again resumes an unfinished run"),
        Subcommand(
            "validate", LIGHTNING, "evaluate a checkpoint (or, without one, an untrained network) on the probe sets"
        ),
        Subcommand("test", LIGHTNING, "the same as validate"),
        Subcommand(
            "predict", LIGHTNING, "compute features of the training images; with WriteClusters: write their clusters"
        ),
        Subcommand(
            "demo",
            "ssl_lightning.commands.demo",
            "train DeepCluster on handwritten digits, evaluate it, and write an HTML report",
        ),
        Subcommand(
            "config",
            "ssl_lightning.commands.config",
            "print a packaged configuration, or list all of them",
            first_option="name",
        ),
        Subcommand("embed", "ssl_lightning.commands.embed", "write the features of a source's images to a file"),
        Subcommand("choose-k", "ssl_lightning.commands.choose_k", "cluster a feature file for several K and compare"),
        Subcommand(
            "clusters", "ssl_lightning.commands.clusters", "write an HTML page with images of each cluster in a file"
        ),
        Subcommand(
            "experts", "ssl_lightning.commands.experts", "state and evaluation of the experts of Divide and Contrast"
        ),
        Subcommand(
            "budget",
            "ssl_lightning.commands.budget",
            "FLOPs of finished runs, and for how many epochs the first could train with those of all",
            takes_folders=True,
        ),
        Subcommand(
            "compare",
            "ssl_lightning.commands.compare",
            "results of runs side by side, with the settings in which they differ",
            takes_folders=True,
        ),
        Subcommand(
            "status",
            "ssl_lightning.commands.status",
            "the runs of a folder, with their states, stages and best results",
            first_option="folder",
        ),
        Subcommand(
            "sweep",
            "ssl_lightning.commands.sweep",
            "train the runs of a sweep file, several at once, and compare them",
        ),
        Subcommand(
            "report",
            "ssl_lightning.commands.report",
            "the page of a run, also while it trains, or with all images in one file",
        ),
        Subcommand(
            "data build",
            "ssl_lightning.commands.data_build",
            "describe every image of a collection in a manifest, with permanent ids",
            takes_folders=True,
            first_option="sources",
        ),
        Subcommand(
            "data check",
            "ssl_lightning.commands.data_check",
            "compare a manifest with its images: missing, changed, moved and new files",
            first_option="manifest",
            flags=("full",),
        ),
        Subcommand(
            "data report",
            "ssl_lightning.commands.data_report",
            "a page about a collection: files, duplicates, clusters and a map of its images",
            first_option="manifest",
            flags=("image_bytes",),
        ),
        Subcommand(
            "data dedup",
            "ssl_lightning.commands.data_dedup",
            "keep one image of each group of duplicates, and none of an evaluation set",
            first_option="manifest",
        ),
        Subcommand(
            "data curate",
            "ssl_lightning.commands.data_curate",
            "sample a balanced subset from clusters of features",
            first_option="manifest",
        ),
        Subcommand("check-setup", "ssl_lightning.commands.check_setup", "versions, devices, data and speed"),
    )
}
"""Every subcommand by its name, in the order of `--help`."""
GROUPS = {name.split()[0] for name in SUBCOMMANDS if " " in name}
"""First words of the names of two words."""
