"""The page of a run shows its clusters: curves of their numbers, their sizes, what they hold."""

import re
import sys
from unittest.mock import Mock, create_autospec

import lightning.pytorch as pl
import torch
from PIL import Image

from ssl_lightning.callbacks import WriteReport
from ssl_lightning.contracts import SourceReport, TrainingData
from ssl_lightning.sample_state import PseudoLabels

K = 5
CLASSES = torch.tensor([0, 0, 1, 1, 2, 2, -1, 0])
HEADS = torch.tensor([[0, 0, 1, 1, 3, 3, 3, -1], [2, 2, 2, 2, 2, 2, 2, -1]]).T
TABLE = {
    "step": ("0", "5"),
    "epoch": ("0", "1"),
    **{f"cluster/{name}": ("0.5", "0.25") for name in ("nmi_labels", "nmi_chance", "ami_labels", "entropy", "empty")},
    **{f"cluster/{name}": ("", "0.75") for name in ("nmi_previous", "reassigned")},
}


class ImageDataset:
    def __init__(self):
        self.classes = ["one", "two", "three"]

    def read(self, rows):
        return [torch.zeros(3, 8, 8, dtype=torch.uint8) for _ in rows], torch.ones(len(rows), dtype=torch.bool)


class Clustered(pl.LightningModule):
    num_clusters, warmup_epochs = K, 0

    def __init__(self, labels):
        super().__init__()
        self.num_heads = labels.shape[1]
        self.pseudo_labels = PseudoLabels()
        self.pseudo_labels.set_extra_state({"rows": labels, "version": 1})

    def clustered_banks(self):
        return []

    def on_reclustered(self, clusterings, seed):
        pass


def page_of(folder, labels):
    run = folder / "run"
    run.mkdir()
    lines = [",".join(TABLE), *(",".join(values[row] for values in TABLE.values()) for row in (0, 1))]
    (run / "metrics.csv").write_text("\n".join(lines))
    images = {"probes": {"shapes": ()}, "source_reports": [SourceReport("./mine", 6, {"hidden": [".a.png"]})]}
    data = Mock(spec=TrainingData, labels=CLASSES, training=ImageDataset(), **images)
    trainer = create_autospec(pl.Trainer, instance=True)
    trainer.is_global_zero, trainer.datamodule = True, data
    WriteReport(str(run / "report")).on_train_end(trainer, Clustered(labels))
    return (run / "report" / "index.html").read_text(), run / "report"


def numbers(page):
    (text,) = re.findall(r"Sizes of the last clusters</h2><pre>(.*?)</pre>", page, re.DOTALL)
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_curves_and_sizes_of_every_clustering_are_on_the_page(tmp_path):
    page, folder = page_of(tmp_path, HEADS)
    for name in ("cluster-curves.png", "sizes-0.png", "sizes-1.png", "cluster-3.png"):
        assert f'src="{name}"' in page
        with Image.open(folder / name) as image:
            assert image.format == "PNG"
    found = numbers(page)
    assert found["clustering"] == ["0", "1"]
    assert found["empty"] == ["2", "4"]
    assert found["nmi_labels"] == ["1", "0"]
    assert found["imbalance"] == ["1.735", "5"]  # 5 x (4 + 4 + 9) / 49
    assert set(found) >= {"entropy", "largest_share", "ami_labels", "nmi_chance"}


def test_images_and_skipped_files_are_on_the_page(tmp_path):
    page, _ = page_of(tmp_path, HEADS)
    assert "<h2>Images</h2><pre>6 images in ./mine; 1 files skipped: 1 hidden (.a.png)</pre>" in page


def test_one_clustering_needs_no_heads(tmp_path):
    page, folder = page_of(tmp_path, HEADS[:, :1])
    assert "clustering" not in numbers(page)
    assert not (folder / "sizes-1.png").exists()


def test_a_machine_without_matplotlib_gets_numbers_and_contact_sheets(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "ssl_lightning.report.clusters", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page, folder = page_of(tmp_path, HEADS)
    assert numbers(page)["empty"] == ["2", "4"]
    assert "cluster-3.png" in page
    assert not list(folder.glob("sizes-*.png"))
