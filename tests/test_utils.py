"""Errors, files, run folders, devices."""

import errno
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import files
from utils.device import device_on, seed_everything
from utils.errors import UserError, exit_on_error

ROOT = Path(__file__).parents[1]
MISSING = FileNotFoundError(2, "No such file or directory", "b.jpg")
IN_WORKER = UserError("Caught UserError in worker\n  Traceback ...\nutils.errors.UserError: c.jpg: too small")


@pytest.mark.parametrize(
    "error, status, line",
    [
        (UserError("a.jpg: not a picture"), 1, "error: a.jpg: not a picture\n"),
        (MISSING, 1, "error: [Errno 2] No such file or directory: 'b.jpg'\n"),
        (FloatingPointError("the loss is nan"), 1, "error: the loss is nan\n"),
        (MemoryError(), 1, "error: out of memory\n"),
        (IN_WORKER, 1, "error: c.jpg: too small\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_of_the_user_are_one_line(capsys, error, status, line):
    with pytest.raises(SystemExit) as caught, exit_on_error():
        raise error
    assert (caught.value.code, capsys.readouterr().err) == (status, line)


@pytest.mark.parametrize("bug", [KeyError("bug"), ValueError("operands could not be broadcast"), RuntimeError("x")])
def test_bugs_keep_their_traceback_and_say_where_to_report_it(capsys, bug):
    with pytest.raises(SystemExit) as caught, exit_on_error():
        raise bug
    first, *middle, last = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1 and first.startswith("Traceback") and "please report it" in last
    assert str(bug) in middle[-1] and any("raise bug" in line for line in middle)


def test_names_that_the_terminal_cannot_show_are_no_error():
    command = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom utils.errors import exit_on_error\n"
    command += "with exit_on_error(): print('Fused: \\u878d\\udcff.png')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Fused: \\u878d\\udcff.png\n", "")


def test_warnings_are_one_line():
    with exit_on_error():
        assert warnings.formatwarning("skipped: x", UserWarning, "file.py", 3) == "warning: skipped: x\n"
    assert "file.py" in warnings.formatwarning("skipped: x", UserWarning, "file.py", 3)


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


STOPPED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from utils.errors import exit_on_error
from utils.files import replacing
with exit_on_error(), replacing("a.png") as temporary:
    temporary.write_text("half")
    try:
        os.kill(os.getpid(), int(sys.argv[2]))
    finally:
        os.kill(os.getpid(), int(sys.argv[2]))  # again: cleaning up goes on
"""


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_run_that_is_stopped_ends_cleanly(tmp_path, name, status):
    command = [sys.executable, "-c", STOPPED, ROOT, str(int(getattr(signal, name)))]
    # nohup ignores SIGHUP, and children inherit that
    default = functools.partial(signal.signal, getattr(signal, name), signal.SIG_DFL)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=default)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (status, "interrupted\n", [])


WORKER = """
import multiprocessing, sys, time
sys.path.insert(0, sys.argv[1])
from utils.errors import exit_on_error
with exit_on_error():
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=lambda: (ready.set(), time.sleep(60)))
    worker.start()
    ready.wait()
    worker.terminate()
    worker.join()
    print(worker.exitcode)
"""


def test_a_worker_that_is_stopped_says_nothing():
    done = subprocess.run([sys.executable, "-c", WORKER, ROOT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("-15\n", "")


def test_a_run_under_nohup_goes_on(tmp_path):
    ignore = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    command = [sys.executable, "-c", STOPPED, ROOT, str(int(signal.SIGHUP))]
    assert subprocess.run(command, cwd=tmp_path, preexec_fn=ignore).returncode == 0
    assert (tmp_path / "a.png").read_text() == "half"


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


def test_seeds_repeat_everything():
    draws = []
    for _ in range(2):
        seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_small_formats():
    assert [files.duration(seconds) for seconds in (0.4, 59.6, 3725)] == ["0:00:00", "0:01:00", "1:02:05"]
    assert files.settings_block({"lr": 1, "model": "x"}) == "--------\n   lr: 1\nmodel: x\n--------"


def test_devices():
    assert device_on("cpu") == torch.device("cpu")
    assert device_on("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("toaster", "meta"):
        with pytest.raises(ValueError, match="expected auto, cpu, cuda"):
            device_on(name)
    if torch.cuda.is_available():
        assert device_on("gpu") == torch.device("cuda")
    else:
        with pytest.raises(ValueError, match="finds 0 CUDA devices: use --device cpu"):
            device_on("gpu")
