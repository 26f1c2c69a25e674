"""benchmarks/gpu.py: wall time of evaluated rows over several segments, and the reference set of each."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITES = """
import sys, time
from pathlib import Path
table = Path(sys.argv[1])
table.parent.mkdir(parents=True, exist_ok=True)
if not table.exists():
    table.write_text("step,epoch,eval/knn/top1,eval/linear/top1,train/images_per_second\\n")
for step in sys.argv[2:]:
    time.sleep(0.4)
    with table.open("a") as file:
        file.write(f"{step},0,0.{step},0.5,\\n{step}5,0,,,100\\n")
time.sleep(60 * (len(sys.argv) == 3))
"""


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


def test_seconds_are_wall_time_of_all_segments_and_the_reference_set_of_both_ends_is_all_rows(gpu, tmp_path):
    run = tmp_path / "swav-s0"
    table = str(run / "metrics.csv")
    first = gpu.Clock(run)
    gpu.run_for(2.5 / 60, [sys.executable, "-c", WRITES, table, "0"], first)  # stopped while it sleeps
    seconds = json.loads((run / "clock.json").read_text())["seconds"]
    assert 2.5 <= seconds < 10
    half = gpu.read(run, first)
    assert not half["finished"]
    second = gpu.Clock(run)
    assert gpu.run_for(1, [sys.executable, "-c", WRITES, table, "1", "2"], second) == 0
    (run / "done.json").write_text("{}")
    evaluations = gpu.read(run, gpu.Clock(run))["evaluated"]
    assert [row["step"] for row in evaluations] == [0, 1, 2]
    assert evaluations[0]["seconds"] == half["evaluated"][0]["seconds"]
    assert evaluations[0]["seconds"] < seconds < evaluations[1]["seconds"] <= evaluations[2]["seconds"]
    assert [row["reference set"] for row in evaluations] == ["all rows", "10,000 rows", "all rows"]
