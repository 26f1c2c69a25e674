"""The search for mistakes finds none in what the parser takes, and does not fail whatever a file holds."""

import random
from pathlib import Path

import pytest
import yaml

from ssl_lightning.arguments import options_in
from ssl_lightning.cli.main import declared_types
from ssl_lightning.cli.mistakes import Search

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
FILES = [file for file in FILES if not file.startswith("sweeps/")]  # of `ssl-lightning sweep`
VALID = [
    "--trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor eval/knn/top1 --trainer.devices [0]",
    "--model.optimizer torch.optim.AdamW --model.optimizer.lr 1e-3 --model.optimizer.betas [0.9,0.99]",
    "--model.backbone TimmBackbone --model.backbone.name resnet18 --model.schedule null",
    "--model.schedule MultiStep --model.schedule.epochs [1,2.5] --data.views [{scale:\u00a0[0.5,1]}]",
    "--data CuratedImages --data.path images --data.include ['*.jpg'] --data.split null",
    "--trainer.precision bf16-mixed --trainer.deterministic warn --trainer.max_time 00:01:00:00",
    "--trainer.logger CSVLogger --trainer.logger.save_dir logs --trainer.strategy ddp --trainer.limit_val_batches 0.5",
    "--trainer.plugins [{class_path:\u00a0LightningEnvironment}] --run.name 3 --resume.policy never",
]


def mistakes(*files: str, options: str = "") -> list[str]:
    search = Search(declared_types())
    tables = [yaml.safe_load((CONFIGS / file).read_text()) for file in files]
    found = [one for file, table in zip(files, tables, strict=True) for one in search.in_file(file, table)]
    given = options_in(options.replace(" ", "\n").replace("\u00a0", " ").split("\n")) if options else []
    return [one.line for one in [*found, *(one for option in given for one in search.in_option(option))]]


def method_of(file: str) -> str:
    """The file with the method that a file changes the settings of."""
    if Path(file).stem.startswith("clusterfit"):
        return "clusterfit/3_fit.yaml"
    stems = sorted((path.stem for path in CONFIGS.glob("*.yaml")), key=len, reverse=True)
    return next((f"{stem}.yaml" for stem in stems if Path(file).stem.startswith(stem)), "swav.yaml")


@pytest.mark.parametrize("file", FILES)
def test_a_packaged_configuration_has_no_mistake(file):
    own = (yaml.safe_load((CONFIGS / file).read_text()).get("model") or {}).get("class_path")
    assert mistakes(*([] if own else [method_of(file)]), "data/folder.yaml", file) == []


@pytest.mark.parametrize("options", VALID)
def test_options_that_fit_have_no_mistake(options):
    assert mistakes("swav.yaml", options=options) == []


ODD = (
    *(None, True, 3, -1.5, float("nan"), "", "x", "torch.optim.SGD", "SwAV", "ssl_lightning.data", "1:2", "*"),
    *([], [[]], [None], {}, {"class_path": None}, {"class_path": ["a"]}, {"init_args": None}, {1: 2}, {None: {}}),
    *({"class_path": "SwAV", "init_args": []}, {"class_path": "SGD", "x": 1}, {"dict_kwargs": 3}, {"a+": [1]}),
)


def changed(value, source: random.Random):
    """A table with odd values in some of its places."""
    if source.random() < 0.15:
        return source.choice(ODD)
    if isinstance(value, dict):
        odd = {name: source.choice([1, None, "x+"]) for name in value if source.random() < 0.03}
        return {odd.get(name, name): changed(inner, source) for name, inner in value.items()}
    return [changed(one, source) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(3))
def test_no_table_makes_the_search_fail(seed):
    source = random.Random(seed)
    tables = [yaml.safe_load((CONFIGS / file).read_text()) for file in FILES]
    for _ in range(15):
        search = Search(declared_types())
        for table in source.sample(tables, 2):
            lines = [one.line for one in search.in_file("odd.yaml", changed(table, source))]
            assert all("found " in line and "; expected " in line for line in lines)
        list(search.missing(["path", "name", "monitor"]))
