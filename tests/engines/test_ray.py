"""Build, duplicates and features on two workers of Ray are those of this machine to the byte, also if one is killed."""

import gc
import os
import signal
import threading
import time
from importlib.util import find_spec
from warnings import catch_warnings

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file

from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.commands import embed_parts
from ssl_lightning.data import UncuratedImages
from ssl_lightning.data.manifest import thumbnails
from ssl_lightning.engines import RayCluster
from ssl_lightning.entry import run
from ssl_lightning.errors import DataError, RunStoppedError
from ssl_lightning.methods import DeepCluster
from ssl_lightning.models import ResNet18
from tests.commands.test_data_dedup import planted
from tests.data.manifest.small_pools import image, write_folder, write_tar
from tests.engines.processes import busy_workers, listening
from tests.engines.tasks import dies, disk_is_full, noted, odd_is_damaged, squared

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the package ray"),
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc of Linux"),
]
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two workers on this machine, which the commands of a test use too."""
    engine = RayCluster(None, 2)
    with engine._connected():
        yield engine
    with catch_warnings(action="ignore", category=ResourceWarning):  # Ray does not wait for its processes to end
        gc.collect()


@pytest.fixture
def folder(tmp_path, monkeypatch, cluster):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ssl-lightning"])
    return tmp_path


def none(*_):
    """Count nothing."""


def test_results_errors_and_counts_are_those_of_local_processes(cluster):
    counted = []
    assert dict(cluster.carry_out(squared, list(range(9)), lambda *done: counted.append(done))) == {
        number: number * number for number in range(9)
    }
    assert [sum(values) for values in zip(*counted, strict=True)] == [9, 36]
    found = dict(cluster.carry_out(odd_is_damaged, [0, 1], none))
    assert found[0] == 0
    assert isinstance(found[1], DataError)
    with pytest.raises(OSError, match="part-5") as raised:
        list(cluster.carry_out(disk_is_full, [5], none))
    assert raised.value.errno == 28


def test_the_cluster_listens_to_this_machine_alone(cluster):
    list(cluster.carry_out(squared, [1, 2], none))
    found = listening()
    assert found
    assert found <= LOOPBACK


def test_the_task_of_a_worker_that_dies_is_carried_out_again_and_no_other(cluster, tmp_path):
    path = tmp_path / "numbers"
    found = dict(cluster.carry_out(noted, [(str(path), number) for number in range(8)], none))
    assert found == {number: number for number in range(8)}
    assert sorted(path.read_text().split()) == sorted([*"01234567", "3"])


def test_a_task_with_workers_that_die_each_time_is_one_line(cluster):
    with pytest.raises(RunStoppedError, match=r"died 4 times at one part.* 0 of 1 parts are finished and kept"):
        list(cluster.carry_out(dies, [1], none))


class Killer(threading.Thread):
    """Kills a worker in the middle of a task once some parts are finished.

    Attributes:
        finished: Time of change of each part that was finished at this moment.
        killed: Id of the worker.
    """

    def __init__(self, folder, pattern):
        super().__init__(daemon=True)
        self.folder, self.pattern = folder, pattern
        self.finished, self.killed = {}, 0
        self.start()

    def run(self):
        end = time.monotonic() + 120
        while time.monotonic() < end and not self.killed:
            finished = self.times()
            workers = busy_workers() if len(finished) >= 2 else []
            if workers:
                os.kill(workers[0], signal.SIGKILL)
                self.finished, self.killed = finished, workers[0]
            time.sleep(0.002)

    def times(self):
        """Time of change of each part; parts that a command has removed meanwhile are none."""
        found = {}
        for path in self.folder.glob(self.pattern):
            try:
                found[path.name] = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue
        return found


def test_a_manifest_is_that_of_one_process_although_a_worker_is_killed(folder):
    for number in range(12):
        write_tar(
            folder / f"s{number:02d}.tar", {f"{row:04d}.png": image(1000 * number + row, 40) for row in range(600)}
        )
    assert run(["data", "build", "./s*.tar", "--out", "local/pool.parquet", "--workers", "1"]) == 0
    parts = folder / "ray" / "pool.parquet.parts"
    killer = Killer(parts, "[!.]*.parquet")
    assert run(["data", "build", "./s*.tar", "--out", "ray/pool.parquet", "--engine", "ray"]) == 0
    killer.join()
    assert killer.killed
    after = killer.times()
    assert len(after) == 12
    assert {name: after[name] for name in killer.finished} == killer.finished
    assert (folder / "ray" / "pool.parquet").read_bytes() == (folder / "local" / "pool.parquet").read_bytes()


def test_duplicates_are_those_of_one_process(folder, monkeypatch):
    monkeypatch.setattr(thumbnails, "IMAGES_OF_A_PART", 16)
    files = {}
    for number in range(10):
        files |= planted(number)
    write_folder(folder / "images", files)
    assert run(["data", "build", "./images", "--out", "pool.parquet", "--workers", "1"]) == 0
    for name, engine in (("local", ["--workers", "1"]), ("ray", ["--engine", "ray"])):
        assert run(["data", "dedup", "pool.parquet", "--out", f"{name}.parquet", "--mirrored", "true", *engine]) == 0
    assert (folder / "ray.parquet").read_bytes() == (folder / "local.parquet").read_bytes()


@pytest.fixture
def checkpoint(folder):
    """A checkpoint, and a manifest of images of several sizes with a broken one that the manifest does not know."""
    write_folder(folder / "images", {f"{number:03d}.png": image(number, 30 + number % 40) for number in range(400)})
    assert run(["data", "build", "./images", "--out", "pool.parquet", "--workers", "1"]) == 0
    (folder / "images" / "123.png").write_bytes(b"\x89PNG")
    (folder / "data.yaml").write_text(
        "data:\n  class_path: ssl_lightning.data.UncuratedImages\n"
        "  init_args: {path: ./pool.parquet, eval_batch_size: 16, num_workers: 0}\n"
    )
    pl.seed_everything(1, verbose=False)
    model = DeepCluster(
        12, ResNet18(16), preprocessing=UncuratedImages(path="./pool.parquet", image_size=64).preprocessing
    )
    model(torch.randn(8, 3, 64, 64))
    content = {"state_dict": model.state_dict(), "global_step": 1, "epoch": 0}
    model.on_save_checkpoint(content)
    DurableCheckpointIO().save_checkpoint(content, folder / "step-1.ckpt")
    return ["embed", "step-1.ckpt"]


def test_features_are_those_of_one_pass_although_a_worker_is_killed(folder, checkpoint):
    options = ["--data", "data.yaml", "--device", "cpu"]
    assert run([*checkpoint, "pass.safetensors", *options]) == 0
    killer = Killer(folder / "ray.safetensors.parts", "[!.]*.safetensors")
    read, times = embed_parts.FeatureParts.read, {}

    def noting(parts):
        times.update(killer.times())
        return read(parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed_parts.FeatureParts, "read", noting)
        assert run([*checkpoint, "ray.safetensors", *options, "--engine", "ray"]) == 0
    killer.join()
    assert killer.killed
    assert len(times) == 400 // 32 + 1
    assert {name: times[name] for name in killer.finished} == killer.finished
    assert (folder / "ray.safetensors").read_bytes() == (folder / "pass.safetensors").read_bytes()
    assert 123 not in load_file(folder / "ray.safetensors")["rows"].tolist()
    assert not (folder / "ray.safetensors.parts").exists()


def test_another_checkpoint_on_a_machine_is_named(folder, checkpoint):
    source = embed_parts.FeatureSource(str(folder / "step-1.ckpt"), "0" * 64, "{}", "", None, "online", "cpu")
    task = embed_parts._Task(source, 0, 1, str(folder / "part.safetensors"))
    (found,) = dict(RayCluster(None, 2).carry_out(embed_parts._make, [task], none)).values()
    assert isinstance(found, DataError)
    assert "found another checkpoint" in str(found)
