"""Errors, files, run folders, devices."""

import json
import random
import warnings

import numpy as np
import pytest
import torch

from utils import utils
from utils.util_device import device_on, seed_everything

MISSING = FileNotFoundError(2, "No such file or directory", "b.jpg")
IN_WORKER = ValueError("Caught ValueError in worker\n  Traceback ...\nValueError: c.jpg: too small")


@pytest.mark.parametrize(
    "error, status, line",
    [
        (ValueError("a.jpg: not a picture"), 1, "error: a.jpg: not a picture\n"),
        (MISSING, 1, "error: [Errno 2] No such file or directory: 'b.jpg'\n"),
        (FloatingPointError("the loss is nan"), 1, "error: the loss is nan\n"),
        (IN_WORKER, 1, "error: c.jpg: too small\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_of_the_user_are_one_line(capsys, error, status, line):
    with pytest.raises(SystemExit) as caught, utils.exit_on_error():
        raise error
    assert (caught.value.code, capsys.readouterr().err) == (status, line)


def test_bugs_keep_their_traceback():
    with pytest.raises(KeyError), utils.exit_on_error():
        raise KeyError("bug")


def test_warnings_are_one_line():
    with utils.exit_on_error():
        assert warnings.formatwarning("skipped: x", UserWarning, "file.py", 3) == "warning: skipped: x\n"
    assert "file.py" in warnings.formatwarning("skipped: x", UserWarning, "file.py", 3)


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "settings.json"
    utils.write_json(path, {"lr": 1e-4, "path": path})
    assert json.loads(path.read_text()) == {"lr": 1e-4, "path": str(path)}
    before = path.read_bytes()
    with pytest.raises(OSError), utils.replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_bytes() == before and [path] == list(path.parent.iterdir())


def test_tables_as_spreadsheets_write_them(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("\ufeffscene,note,under\na,x,1.png\n", encoding="utf-8")
    assert utils.read_table(table, ("scene", "under")) == [{"scene": "a", "note": "x", "under": "1.png"}]
    for content in (b"scene,note\na,x\n", b"scene,under\na\n", b"scene,under\n", b"", b"\xff\xfe\x00\x01", b"a\0b,c\n"):
        table.write_bytes(content)
        with pytest.raises(ValueError, match="pairs.csv.* CSV table"):
            utils.read_table(table, ("scene", "under"))


def test_run_folders_are_never_shared(tmp_path):
    folders = [utils.make_run_folder(tmp_path / "runs") for _ in range(3)]
    assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)


def test_seeds_repeat_everything():
    draws = []
    for _ in range(2):
        seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_small_formats():
    assert [utils.duration(seconds) for seconds in (0.4, 59.6, 3725)] == ["0:00:00", "0:01:00", "1:02:05"]
    assert utils.settings_block({"lr": 1, "model": "x"}) == "--------\n   lr: 1\nmodel: x\n--------"


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
