"""utils/files.py: files that are whole or absent, tables, run folders."""

import errno
import json
import os
import re
import subprocess
import time

import pytest

from utils import files


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "settings.json"
    files.write_json(path, {"lr": 1e-4, "path": path})
    assert json.loads(path.read_text()) == {"lr": 1e-4, "path": str(path)}
    before = path.read_bytes()
    with pytest.raises(OSError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_bytes() == before and [path] == list(path.parent.iterdir())


def test_a_full_disk_names_the_file_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("before")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # where a disk that is full after all says so
    with pytest.raises(OSError, match="No space left on device: .*a.json"):
        files.write_json(path, {"lr": 1})
    assert path.read_text() == "before" and [path] == list(tmp_path.iterdir())


def test_names_as_long_as_the_file_system_has_them(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    with files.replacing(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_leftovers_of_killed_runs_are_removed_and_no_other_files(tmp_path):
    for name, age in ((".deepfuse-old.part", 4000), (".deepfuse-new.part", 3000), (".mine", 9000), ("old.png", 9000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    for _ in range(2):
        files.write_json(tmp_path / "a.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".deepfuse-new.part", ".mine", "a.json", "old.png"]


def test_tables_as_spreadsheets_write_them(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("\ufeffscene,note,under\na,x,1.png\n", encoding="utf-8")
    assert files.read_table(table, ("scene", "under")) == [{"scene": "a", "note": "x", "under": "1.png"}]
    with pytest.raises(FileNotFoundError, match="none.csv: no such table"):
        files.read_table(tmp_path / "none.csv", ("scene",))
    for content in (b"scene,note\na,x\n", b"scene,under\na\n", b"scene,under\n", b"", b"\xff\xfe\x00\x01", b"a\0b,c\n"):
        table.write_bytes(content)
        with pytest.raises(ValueError, match="pairs.csv.* CSV table"):
            files.read_table(table, ("scene", "under"))


def test_run_folders_are_never_shared(tmp_path):
    folders = [files.make_run_folder(tmp_path / "runs") for _ in range(3)]
    assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)


def test_the_commit_is_that_of_the_code_and_says_whether_it_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "utils.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert files.git_sha() == "unknown"

    def git(*arguments):
        options = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", *options, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)

    (tmp_path / "a.txt").write_text("a")
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    commit = git("rev-parse", "HEAD").stdout[:12]
    assert files.git_sha() == commit
    (tmp_path / "a.txt").write_text("b")
    assert files.git_sha() == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert files.git_sha() == "unknown"


def test_small_formats():
    assert files.settings_block({"lr": 1, "model": "x"}) == "--------\n   lr: 1\nmodel: x\n--------"


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0, 0o666)])
def test_files_have_the_modes_that_the_user_wants(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        for _ in range(2):  # new, and replaced
            files.write_json(tmp_path / "a.json", {})
            assert (tmp_path / "a.json").stat().st_mode & 0o777 == mode
        assert os.umask(mask) == mask  # as it was
    finally:
        os.umask(before)


def test_what_is_left_behind_is_removed_after_an_hour(tmp_path):
    for age in (3500, 3700):
        (tmp_path / f".deepfuse-{age}.part").touch()
        os.utime(tmp_path / f".deepfuse-{age}.part", (time.time() - age,) * 2)
    files.write_json(tmp_path / "a.json", {"a": [1]})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".deepfuse-3500.part", "a.json"]
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1\n  ]\n}\n'


def test_run_folders_are_numbered_from_two(tmp_path):
    names = [files.make_run_folder(tmp_path).name for _ in range(3)]
    assert re.fullmatch(r"train_\d\d-\d\d_\d\d-\d\d", names[0]) and names[1:] == [f"{names[0]}_2", f"{names[0]}_3"]
