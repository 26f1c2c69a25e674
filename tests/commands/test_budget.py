"""budget: flops of runs, and the epochs of the first that would spend those of all."""

import pytest

from ssl_lightning.entry import run


def write_run(folder, name, epochs, steps, flops):
    """The table of a run; its last row of training is a tenth of the steps before its end."""
    (folder / name).mkdir()
    lines = ["step,epoch,train/loss,train/flops,eval/knn/top1"]
    lines += [
        f"{steps // 2},0,1.5,{flops / 2},",
        f"{steps * 9 // 10},{epochs - 1},1.25,{0.9 * flops},",
        f"{steps},{epochs},,,0.5",
    ]
    (folder / name / "metrics.csv").write_text("\n".join(lines) + "\n")
    return str(folder / name)


def test_what_runs_have_spent_and_how_long_the_first_would_train_for_it(tmp_path, capsys):
    base = write_run(tmp_path, "base", 4, 400, 4e9)
    expert = write_run(tmp_path, "expert", 6, 300, 3.1e9)
    assert run(["budget", base, expert]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split() for line in shown[1:3]] == [
        [base, "4", "400", "4e+09", "56.3%"],
        [expert, "6", "300", "3.1e+09", "43.7%"],
    ]
    assert shown[3] == f"all: 7.1e+09, for which {base} would train 8 epochs: --trainer.max_epochs 8"  # 7.1, rounded up


def test_a_run_with_a_row_of_training_at_its_last_step_has_no_further_epoch(tmp_path, capsys):
    rows = ["step,epoch,train/flops,eval/knn/top1", "380,1,3.8e9,", "390,2,3.9e9,0.5"]
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "metrics.csv").write_text("\n".join(rows) + "\n")
    expert = write_run(tmp_path, "expert", 6, 300, 3.1e9)
    assert run(["budget", str(tmp_path / "base"), expert]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split()[1:3] == ["2", "390"]
    assert shown[3].endswith("--trainer.max_epochs 4")


@pytest.mark.parametrize("content", [None, "step,epoch,train/loss\n2,0,1.5\n"])
def test_a_folder_without_flops_is_one_line(tmp_path, capsys, content):
    (tmp_path / "run").mkdir()
    if content is not None:
        (tmp_path / "run" / "metrics.csv").write_text(content)
    assert run(["budget", str(tmp_path / "run")]) == 65
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "found no " in line
    assert "expected " in line


def test_folders_without_training_are_left_out_with_a_line(tmp_path, capsys):
    runs = [str(tmp_path / "probe"), write_run(tmp_path, "base", 4, 400, 4e9), write_run(tmp_path, "more", 4, 400, 4e9)]
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "metrics.csv").write_text("step,eval/knn/top1\n0,0.5\n")
    assert run(["budget", *runs]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"left out: found no train/flops in {tmp_path / 'probe' / 'metrics.csv'}")
    assert f"for which {runs[1]} would train 8 epochs" in shown[-1]
