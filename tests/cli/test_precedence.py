"""What is written is what runs: order of files and options, another class, lists, keys that stand twice."""

import itertools
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from ssl_lightning.cli.precedence import in_order
from ssl_lightning.cli.seeds import check_seed
from ssl_lightning.data import ImageModule
from ssl_lightning.data.module import LOADER_ARGUMENTS
from ssl_lightning.entry import run
from ssl_lightning.errors import UsageError

OF_THE_SOURCE = {"image_size", "mean", "std", "probe_sets"}
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def resolved(capsys, *arguments: str) -> dict:
    """The configuration of `fit`."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        run(["fit", *arguments, "--print_config="])
    printed = capsys.readouterr().out
    assert done.value.code == 0
    return yaml.safe_load(printed)


def ended(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and the line of an error."""
    try:
        code = run(["fit", *arguments])
    except SystemExit as stop:
        code = stop.code
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error:" in line)
    return code, line


PACKAGED = ["swav", "data/cifar10", "scale/cpu", "shared/wandb"]


@pytest.mark.parametrize("order", [*itertools.permutations(PACKAGED[:3]), PACKAGED[::-1]])
def test_packaged_files_take_effect_in_the_order_of_their_folders(order, capsys):
    given = list(itertools.chain(*(("--config", name) for name in order)))
    config = resolved(capsys, *given)
    assert config["data"]["class_path"] == "ssl_lightning.data.CuratedImages"
    assert config["data"]["init_args"]["path"] == "cifar10.tar.xz"
    assert config["data"]["init_args"]["mean"] == [0.4913, 0.4821, 0.4465]
    assert list(config["data"]["init_args"]["probe_sets"]) == ["cifar10"]
    assert config["data"]["init_args"]["batch_size"] == 128
    assert config["data"]["init_args"]["views"][0]["count"] == 2
    assert config["model"]["init_args"]["backbone"]["init_args"]["width"] == 16
    assert config["trainer"]["max_epochs"] == 20


def test_files_of_the_user_follow_the_packaged_ones_in_the_given_order_and_options_come_last(capsys):
    Path("one.yaml").write_text("model: {init_args: {epsilon: 0.1, temperature: 0.3}}\n")
    Path("two.yaml").write_text("model: {init_args: {epsilon: 0.2}}\ntrainer: {max_epochs: 3}\n")
    given = ["--trainer.max_epochs", "7", "--config", "one.yaml", "--config=two.yaml", "--config", "swav"]
    config = resolved(capsys, *given)
    assert config["trainer"]["max_epochs"] == 7
    assert config["model"]["init_args"]["epsilon"] == 0.2
    assert config["model"]["init_args"]["temperature"] == 0.3


@pytest.mark.parametrize("files", [("swav", "deepcluster"), ("mine.yaml", "swav"), ("short.yaml", "simclr")])
def test_two_methods_are_an_error(files, capsys):
    Path("mine.yaml").write_text("model: {class_path: ssl_lightning.methods.BYOL}\n")
    Path("short.yaml").write_text("model: MoCLR\n")
    code, line = ended(capsys, *itertools.chain(*(("--config", name) for name in files)))
    assert code == 64
    assert "found two methods in the configurations" in line


def test_two_packaged_sources_are_an_error_and_a_complete_config_before_one_is_not(capsys):
    code, line = ended(capsys, "--config", "swav", "--config", "data/digits", "--config", "data/cifar10")
    assert code == 64
    assert "found the data sources digits and cifar10" in line
    Path("mine.yaml").write_text((CONFIGS / "swav.yaml").read_text())
    config = resolved(capsys, "--config", "mine.yaml", "--config", "swav")
    assert config["model"]["class_path"] == "ssl_lightning.methods.SwAV"


def test_the_same_file_twice_is_no_second_source(capsys):
    config = resolved(capsys, "--config", "swav", "--config", "data/cifar10", "--config", "data/cifar10")
    assert config["data"]["init_args"]["path"] == "cifar10.tar.xz"


TIMM = ["--model.backbone", "TimmBackbone", "--model.backbone.name", "regnety_004"]
NAME_FIRST = [*TIMM[2:], *TIMM[:2]]


@pytest.mark.parametrize("options", [TIMM, NAME_FIRST], ids=["class first", "argument first"])
@pytest.mark.parametrize("scale", [[], ["--config", "scale/cpu"]], ids=["method", "scale"])
def test_another_network_has_its_own_defaults(options, scale, capsys):
    backbone = resolved(capsys, "--config", "swav", *scale, *options)["model"]["init_args"]["backbone"]
    assert backbone["class_path"] == "ssl_lightning.models.TimmBackbone"
    assert backbone["init_args"]["name"] == "regnety_004"
    assert backbone["init_args"]["stem"] == "imagenet"
    assert "width" not in backbone["init_args"]


def test_another_network_in_a_file_has_its_own_defaults(capsys, caplog):
    backbone = {"class_path": "ssl_lightning.models.TimmBackbone", "init_args": {"name": "resnet18"}}
    Path("timm.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"backbone": backbone}}}))
    with caplog.at_level("INFO"):
        found = resolved(capsys, "--config", "swav", "--config", "scale/cpu", "--config", "timm.yaml")
    assert found["model"]["init_args"]["backbone"]["init_args"]["stem"] == "imagenet"
    lines = [line for line in caplog.messages if "replaces" in line]
    assert lines == ["TimmBackbone replaces ResNet18: width=16 of ResNet18 is dropped"]


def dropped(capsys, caplog, *arguments: str) -> list[str]:
    """Lines about values that a class change drops."""
    with caplog.at_level("INFO"):
        resolved(capsys, *arguments)
    return [line for line in caplog.messages if "is dropped" in line]


def test_dropped_values_are_plain_yaml(capsys, caplog):
    given = ["--config", "swav", "--config", "data/cifar10", "--data", "UncuratedImages", "--data.path", "images"]
    lines = dropped(capsys, caplog, *given)
    probe_sets = "probe_sets={cifar10: {train: cifar10.tar.xz/train, test: cifar10.tar.xz/test}}"
    assert f"UncuratedImages replaces CuratedImages: {probe_sets} of CuratedImages is dropped" in lines
    assert "UncuratedImages replaces CuratedImages: mean=[0.4913, 0.4821, 0.4465] of CuratedImages is dropped" in lines
    assert "Namespace" not in str(lines)


def test_a_dropped_value_of_the_user_is_reported_also_if_it_is_the_default(capsys, caplog):
    Path("mine.yaml").write_text("model: {init_args: {backbone: {init_args: {width: 64}}}}\n")
    given = ["--config", "deepcluster", "--config", "mine.yaml", "--model.backbone", "AlexNet"]
    assert dropped(capsys, caplog, *given) == ["AlexNet replaces ResNet18: width=64 of ResNet18 is dropped"]
    caplog.clear()
    assert dropped(capsys, caplog, *given[:2], *given[4:]) == []


@pytest.mark.parametrize(
    ("options", "place", "expected"),
    [
        (["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1"], "optimizer", {"weight_decay": 0}),
        (["--model.schedule", "MultiStep", "--model.schedule.epochs", "[1]"], "schedule", {"warmup_epochs": 0}),
    ],
)
def test_another_optimizer_or_schedule_has_its_own_defaults(options, place, expected, capsys):
    found = resolved(capsys, "--config", "swav", *options)["model"]["init_args"][place]["init_args"]
    assert {name: found[name] for name in expected} == expected


def test_another_clusterer_and_transform_have_their_own_defaults(capsys):
    callbacks = [{"class_path": "ssl_lightning.callbacks.Recluster", "init_args": {"clusterer": {
        "class_path": "ssl_lightning.clustering.FaissKMeans", "init_args": {"iterations": 7, "metric": "cosine"}},
        "transform": {"class_path": "ssl_lightning.clustering.PCAWhitening", "init_args": {"dim": 9}}}}]  # fmt: skip
    Path("clusters.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    options = ["--trainer.callbacks.clusterer", "KMeans", "--trainer.callbacks.transform", "UnitRows"]
    config = resolved(capsys, "--config", "deepcluster", "--config", "clusters.yaml", *options)
    (recluster,) = config["trainer"]["callbacks"]
    assert recluster["init_args"]["clusterer"]["class_path"] == "ssl_lightning.clustering.KMeans"
    assert recluster["init_args"]["clusterer"]["init_args"]["iterations"] == 20
    assert recluster["init_args"]["clusterer"]["init_args"]["metric"] == "l2"


def test_another_method_has_its_own_defaults_and_keeps_what_the_command_line_gives(capsys):
    config = resolved(capsys, "--config", "swav", "--model.temperature", "0.3", "--model", "SimCLR")
    assert config["model"]["class_path"] == "ssl_lightning.methods.SimCLR"
    assert config["model"]["init_args"]["temperature"] == 0.3
    assert "epsilon" not in config["model"]["init_args"]
    assert config["model"]["init_args"]["schedule"] is None
    code, line = ended(capsys, "--config", "swav", "--model", "SimCLR", "--model.epsilon", "0.1")
    assert code == 2
    assert "epsilon" in line


def test_the_same_class_under_another_name_keeps_its_arguments(capsys):
    Path("again.yaml").write_text(
        "model: {init_args: {backbone: {class_path: ssl_lightning.models.backbones.ResNet18}}}\n"
    )
    config = resolved(capsys, "--config", "swav", "--config", "scale/cpu", "--config", "again.yaml")
    assert config["model"]["init_args"]["backbone"]["init_args"]["width"] == 16


def test_another_source_keeps_what_belongs_to_the_method_and_the_loader(capsys):
    given = ["--config", "swav", "--config", "data/cifar10", "--data", "UncuratedImages", "--data.path", "images"]
    data = resolved(capsys, *given)["data"]["init_args"]
    assert (data["batch_size"], data["views"][0]["count"]) == (128, 2)
    assert (data["image_size"], data["mean"], data["probe_sets"]) == (32, [0.5, 0.5, 0.5], None)


def test_every_argument_of_a_source_belongs_to_it_or_to_the_loader():
    names = {field.name for field in fields(ImageModule)}
    assert set(LOADER_ARGUMENTS) <= names
    assert names >= OF_THE_SOURCE
    assert OF_THE_SOURCE.isdisjoint(LOADER_ARGUMENTS)


@pytest.mark.parametrize("path", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_packaged_source_sets_all_that_belongs_to_a_source(path):
    assert set(yaml.safe_load(path.read_text())["data"]["init_args"]) >= OF_THE_SOURCE


REPLACED = [
    {"class_path": "ssl_lightning.callbacks.Recluster"},
    {"class_path": "ssl_lightning.callbacks.ProbeFeatures"},
]


@pytest.mark.parametrize("on_the_command_line", [True, False])
def test_a_list_replaces_a_list_of_the_same_length(on_the_command_line, capsys):
    Path("list.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": REPLACED}}))
    option = ["--trainer.callbacks", yaml.safe_dump(REPLACED, default_flow_style=True).strip()]
    config = resolved(
        capsys, "--config", "deepcluster", *(option if on_the_command_line else ["--config", "list.yaml"])
    )
    recluster, probes = config["trainer"]["callbacks"]
    assert recluster["init_args"]["clusterer"] is None or "Faiss" not in str(recluster["init_args"]["clusterer"])
    assert recluster["init_args"]["transform"] is None
    assert probes["class_path"].endswith("ProbeFeatures")


@pytest.mark.parametrize("on_the_command_line", [True, False])
def test_views_replace_views(on_the_command_line, capsys):
    option = ["--data.views", "[{scale: [0.5, 1.0], grayscale: 0.0}]"]
    Path("views.yaml").write_text("data: {init_args: {views: [{scale: [0.5, 1.0], grayscale: 0.0}]}}\n")
    Path("former.yaml").write_text("data: {init_args: {views: [{solarize: 0.7, color_jitter_p: 0.1}]}}\n")
    given = option if on_the_command_line else ["--config", "views.yaml"]
    (view,) = resolved(capsys, "--config", "deepcluster", "--config", "former.yaml", *given)["data"]["init_args"][
        "views"
    ]
    assert (view["scale"], view["grayscale"]) == ([0.5, 1.0], 0.0)
    assert (view["solarize"], view["color_jitter_p"]) == (0.0, 0.8)


def test_a_table_of_probe_sets_replaces_the_one_before(capsys):
    option = ["--data.probe_sets", "{cifar10: {train: a/train, test: a/test}}"]
    config = resolved(capsys, "--config", "swav", "--config", "data/uncurated", *option)
    (probe_set,) = config["data"]["init_args"]["probe_sets"].values()
    assert (probe_set["train"], probe_set["test"], probe_set["image_size"]) == ("a/train", "a/test", None)


def test_a_list_can_be_appended_to_and_its_last_entry_changed(capsys):
    options = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "eval/knn/top1"]
    config = resolved(capsys, "--config", "deepcluster", *options)
    assert [one["class_path"].rpartition(".")[2] for one in config["trainer"]["callbacks"]] == [
        *("Recluster", "ProbeFeatures", "EarlyStopping")
    ]
    assert config["trainer"]["callbacks"][0]["init_args"]["transform"]["init_args"]["dim"] == 64


def test_options_without_a_class_keep_their_order():
    words = ["fit", "--a.b", "1", "--c", "--config", "swav.yaml", "--a", "X", "--a.d=2", "--e", "-1"]
    assert in_order(words) == ["fit", "--config=swav.yaml", "--a", "X", "--a.b", "1", "--c", "--a.d=2", "--e", "-1"]


def test_the_order_leaves_words_that_stand_alone_and_short_options():
    words = ["fit", "x", "--a.b", "1", "2", "--config=swav.yaml", "-h", "--a", "X", "--", "--c"]
    ordered = ["fit", "--config=swav.yaml", "x", "--a", "X", "--a.b", "1", "2", "-h", "--", "--c"]
    assert in_order(words) == ordered


def test_numbers_and_names_are_taken_in_every_form(capsys):
    for given in (["-cswav"], ["-c", "swav"], ["-c=swav"]):
        config = resolved(capsys, *given, "--model.temperature", "-1e-3", "--seed_everything", "+7")
        assert config["model"]["init_args"]["temperature"] == -1e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--config", "swav", "data/cifar10"], "found data/cifar10 without an option; expected --config data/cifar10"),
        (["--config", "swav", "--trainer.max_steps", "-1", "5"], "found 5 without an option"),
        (["--config", "swav", "--", "--trainer.max_steps"], "found -- without an option"),
    ],
)
def test_words_that_stand_alone_are_named(given, message, capsys):
    code, line = ended(capsys, *given)
    assert code == 2
    assert message in line


def test_a_configuration_without_a_name_is_one_line(capsys):
    code, line = ended(capsys, "--config", "--trainer.max_steps", "3")
    assert code == 64
    assert "found --config without a file; expected a configuration" in line


def test_help_follows_a_configuration(capsys):
    with pytest.raises(SystemExit) as done:
        run(["fit", "--config", "swav", "-h"])
    assert done.value.code == 0
    assert "--run.name" in capsys.readouterr().out


TWICE = {
    "a section": ("swav", "trainer:\n  max_epochs: 3\n", "trainer"),
    "a key of a section": (
        None,
        "data:\n  init_args:\n    batch_size: 4\n    seed: 1\n    batch_size: 8\n",
        "batch_size",
    ),
    "a quoted key": (None, "model: {class_path: a}\n'model': {class_path: b}\n", "model"),
    "a key of an entry": (None, "trainer:\n  callbacks:\n    - class_path: a\n      class_path: b\n", "class_path"),
}


@pytest.mark.parametrize(("base", "text", "key"), TWICE.values(), ids=TWICE)
def test_a_key_twice_is_an_error_with_the_file_and_both_lines(base, text, key, capsys):
    before = (CONFIGS / f"{base}.yaml").read_text() if base else ""
    Path("twice.yaml").write_text(before + text)
    code, line = ended(capsys, "--config", "swav" if base is None else "data/digits", "--config", "twice.yaml")
    assert code == 2
    assert "twice.yaml" in line
    assert f"the key '{key}' twice, in lines" in line


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "- 1\n- 2\n", "just words\n", "model:\n\tlr: 1\n", "a: [1\n"]
)
def test_an_empty_or_broken_file_is_named(text, capsys):
    Path("broken.yaml").write_text(text)
    code, line = ended(capsys, "--config", "swav", "--config", "broken.yaml", "--config", "data/digits")
    assert code == 2
    assert "broken.yaml" in line
    assert "Unexpected config" not in line


@pytest.mark.parametrize(
    ("place", "value"),
    [("model.preprocessing.image_size", "64"), ("model.init_args.preprocessing", "{image_size: 64}")],
)
@pytest.mark.parametrize("in_a_file", [True, False])
def test_the_data_decide_the_preprocessing(place, value, in_a_file, capsys):
    section, _, rest = place.partition(".")
    table = yaml.safe_load(value)
    for name in reversed(rest.split(".")):
        table = {name: table}
    Path("mine.yaml").write_text(yaml.safe_dump({section: table}))
    given = ["--config", "mine.yaml"] if in_a_file else [f"--{place}={value}"]
    code, line = ended(capsys, "--config", "simclr", *given)
    assert code == 64
    assert "found " in line
    assert "--data.image_size" in line


def test_the_configuration_of_a_run_holds_its_preprocessing(capsys):
    whole = resolved(capsys, "--config", "simclr", "--seed_everything", "4")
    whole["data"]["init_args"]["seed"] = 4
    whole["model"]["init_args"]["preprocessing"] = {"image_size": 16}
    Path("config.yaml").write_text(yaml.safe_dump(whole))
    again = resolved(capsys, "--config", "config.yaml", "--seed_everything", "5")
    assert again["seed_everything"] == 5


@pytest.mark.parametrize("value", ["7", "-1"])
@pytest.mark.parametrize("place", ["--data.seed", "--data.init_args.seed", "a file"])
def test_another_seed_for_the_data_is_rejected_since_it_would_have_no_effect(place, value, capsys):
    Path("mine.yaml").write_text(f"data:\n  init_args:\n    seed: {value}\n")
    given = ["--config", "mine.yaml"] if place == "a file" else [f"{place}={value}"]
    code, line = ended(capsys, "--config", "swav", "--config", "data/digits", *given)
    assert code == 64
    assert f"found data.seed={value} and --seed_everything 0" in line
    assert line.endswith(f"give --seed_everything {value}")


@pytest.mark.parametrize("text", ["{class_path: Digits, init_args: {seed: 7}}", "{seed: 7}"])
def test_another_seed_in_a_table_of_the_data_is_rejected(text, capsys):
    code, line = ended(capsys, "--config", "swav", "--config", "data/digits", "--data", text)
    assert (code, "found data.seed=7" in line) == (64, True)


def test_the_seed_that_a_run_wrote_for_its_data_gives_way_to_another_seed():
    Path("written.yaml").write_text("seed_everything: 3\ndata:\n  init_args:\n    seed: 3\n")
    for seed in (3, 5):
        check_seed(seed, ["--config", "written.yaml"])
    check_seed(5, ["--data.seed", "5"])
    with pytest.raises(UsageError, match=r"found data\.seed=5 and --seed_everything 4"):
        check_seed(4, ["--data.seed", "5"])
