"""Errors that a user can cause, as one line; defects, with their traceback; signals, as one interruption."""

import contextlib
import functools
import importlib
import io
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

# What libraries say when memory is short, mostly in a RuntimeError: PyTorch, OpenCV, ONNX Runtime.
NO_MEMORY = re.compile(r"out of memory|(can't|fail\w* to) allocate|insufficient memory|bad_alloc", re.IGNORECASE)
REPORT = "this is a defect of DeepFuse: please report it, with the lines above, where you got the program"


class UserError(ValueError):
    """What a user did and can mend, such as a file that is damaged: the program says it in one line."""


class Defect(Exception):
    """A bug of this program, as text: its traceback, and what to do with it."""


@contextlib.contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turns a library's exceptions of these kinds, raised for what a user did, into a UserError of one line."""
    try:
        yield
    except kinds as error:
        raise UserError(" ".join(str(error).split())) from error


def clear(error: Exception) -> Exception:
    """Returns what a user can cause as it is, or as a UserError of one line (memory), and anything else as a Defect.

    The new errors have no traceback: its frames would keep the memory alive that the next scene needs.
    """
    if isinstance(error, (UserError, OSError, FloatingPointError, Defect)):
        return error
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or NO_MEMORY.search(text):
        return UserError(text or "out of memory")
    return Defect("".join([*traceback.format_exception(type(error), error, error.__traceback__), REPORT]))


def told(error: Exception, name: str = "") -> str:
    """Returns an error as scripts print it: in one line `error: [name: ]...`, a defect below its traceback."""
    *above, line = str(error := clear(error)).strip().splitlines() or [type(error).__name__]
    # An error of a DataLoader's worker arrives as its traceback, with the message as the last line.
    line = re.sub(rf"^[\w.]*{type(error).__name__}: ", "", line)
    return "\n".join([*(above if isinstance(error, Defect) else []), f"error: {name and f'{name}: '}{line}"])


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Turns errors into lines on stderr and an exit status.

    - What a user can cause (see `clear`): `error: ...`, status 1 (argparse's own errors: status 2).
    - A defect: its traceback, and a line that asks to report it, status 1.
    - Ctrl-C, SIGTERM and SIGHUP, which raise KeyboardInterrupt inside: `interrupted`, status 128 + signal number.
    - Warnings: `warning: ...`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that the terminal cannot show is no error
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    handlers = {}
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) == signal.SIG_DFL:  # stays ignored under nohup
            handlers[number] = signal.signal(number, functools.partial(_interrupt, os.getpid()))
    try:
        yield
    except Exception as error:
        print(told(error), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
    finally:
        warnings.formatwarning = format_warning
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt(process: int, number: int, frame: object) -> None:
    """Raises KeyboardInterrupt; ignores further signals, so that cleaning up is not interrupted. A worker just ends."""
    if os.getpid() != process:  # a worker, forked from `process`
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def optional(package: str, wanted: str, fix: str = "") -> ModuleType:
    """Returns the module of a package (pip's name) that not every user has installed.

    Raises:
        UserError: It is missing. `wanted` (a file, an option) needs it; `fix` says what to do.
    """
    try:
        return importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise UserError(f"{wanted} needs the package {package}: {fix or f'pip install {package}'}") from error


def require(*packages: str) -> None:
    """Raises ValueError unless these packages (pip's names) are installed; it names those that are missing."""
    modules = {"scikit-image": "skimage"}  # others are imported by pip's name, with _ for -
    missing = [name for name in packages if not find_spec(modules.get(name, name.replace("-", "_")))]
    if missing:
        raise UserError(f"{', '.join(missing)} must be installed first: pip install {' '.join(missing)}")
