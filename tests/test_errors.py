"""utils/errors.py: one line for what users can mend, a traceback for defects, clean ends on signals."""

import functools
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from utils.errors import UserError, exit_on_error, optional, require

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


def test_packages_that_are_missing_are_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_one", warnings)
    assert optional("own-one", "a.jpg") is warnings  # by pip's name
    with pytest.raises(UserError, match="^a.jpg needs the package no-such-one: pip install no-such-one$"):
        optional("no-such-one", "a.jpg")
    with pytest.raises(UserError, match="^LPIPS needs the package no-such-one: wait$"):
        optional("no-such-one", "LPIPS", "wait")
    require("numpy", "scikit-image")
    with pytest.raises(UserError, match="^no-one, none must be installed first: pip install no-one none$"):
        require("no-one", "numpy", "none")


def test_warnings_are_one_line():
    with exit_on_error():
        assert warnings.formatwarning("skipped: x", UserWarning, "file.py", 3) == "warning: skipped: x\n"
    assert "file.py" in warnings.formatwarning("skipped: x", UserWarning, "file.py", 3)


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
