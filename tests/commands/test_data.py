"""data build and data check as they are typed."""

import sys

import pytest

from ssl_lightning.entry import main, run
from tests.data.manifest.small_pools import image, write_folder, write_tar


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images", {f"{number}.png": image(number) for number in range(5)})
    write_tar(tmp_path / "s0.tar", {"a.png": image(9), "b.png": b"no image"})
    return tmp_path


def test_a_manifest_is_built_built_again_and_checked(pool, capsys):
    command = ["data", "build", "./images", "./s*.tar", "--out", "pool.parquet", "--workers", "1"]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert "pool.parquet: 7 rows, 6 usable, 1 format" in shown
    assert "7 new, 0 changed, 0 vanished, 0 renamed, 0 unchanged" in shown
    (pool / "images" / "9.png").write_bytes(image(99))
    assert run(command) == 0
    assert "1 new, 0 changed, 0 vanished, 0 renamed, 7 unchanged" in capsys.readouterr().out
    assert run(["data", "check", "pool.parquet", "--full"]) == 0
    assert "8 files with equal content" in capsys.readouterr().out
    (pool / "images" / "9.png").unlink()
    assert run(["data", "check", "pool.parquet"]) == 65
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["1 missing: ./images/9.png"]
    assert "found 1 missing of 8 files" in shown.err


def test_jobs_and_a_merge(pool, capsys):
    for number in (1, 2):
        command = ["data", "build", "./images", "./s0.tar", "--out", "pool.parquet", "--part", f"{number}/2"]
        assert run([*command, "--workers", "1"]) == 0
    assert not (pool / "pool.parquet").exists()
    assert run(["data", "build", "--merge", "pool.parquet.parts", "--out", "pool.parquet"]) == 0
    assert "7 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        ([], 64, "expected a name that ends in .parquet: give --out"),
        (["./images", "--out", "pool.csv"], 64, "expected a name that ends in .parquet"),
        (["--out", "pool.parquet"], 64, "found sources and --merge, or neither"),
        (["./images", "--out", "pool.parquet", "--part", "3/2"], 64, "expected i/n"),
        (["./images", "--out", "pool.parquet", "--workers", "0"], 64, "found workers=0"),
        (["./absent", "--out", "pool.parquet"], 65, "./absent not found"),
        (["./list.csv", "--out", "pool.parquet", "--workers", "1"], 65, "which refers to files beside it"),
        (
            ["s3://bucket/a.tar", "--out", "pool.parquet"],
            64,
            "found the address s3://bucket/a.tar; expected a local path",
        ),
        (["./empty", "--out", "pool.parquet"], 65, "found no image in"),
        (["--merge", "parts", "--out", "pool.parquet", "--label", "json:kind"], 64, "found --label and --merge"),
        (["--merge", "absent", "--out", "pool.parquet"], 65, "found no parts in absent"),
        (["./images", "--out", "images"], 64, "expected a name that ends in .parquet"),
        (["./images", "--out", "file/pool.parquet"], 64, "which cannot be written"),
    ],
)
def test_a_mistake_is_one_line(pool, options, code, line, capsys):
    (pool / "empty").mkdir()
    (pool / "list.csv").write_text("path\nimages/1.png\nimages/2.png\n")
    (pool / "file").touch()
    assert run(["data", "build", *options]) == code
    (shown,) = [each for each in capsys.readouterr().err.splitlines() if each]
    assert line in shown


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["data"], None, "data check"),
        (["data", "--help"], None, "usage: ssl-lightning data SUBCOMMAND"),
        (["data", "chekc"], 2, "found the subcommand 'data chekc'; expected data check"),
        (["data", "xyz"], 2, "expected one of data build, data check"),
    ],
)
def test_the_subcommands_of_a_group_are_listed(words, code, line, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ssl-lightning", *words])
    if code is None:
        main()
    else:
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == code
    shown = capsys.readouterr()
    assert line in shown.out + shown.err
