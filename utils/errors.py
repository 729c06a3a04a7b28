"""Errors that a user can cause, as one line; signals, as one interruption."""

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec


class Unsupported(ValueError):
    """A picture that is whole, but of a kind that is not read; its text says what was expected and what came."""


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Turns errors that a user can cause into one line on stderr and an exit status; bugs keep their traceback.

    - ValueError, OSError, FloatingPointError, MemoryError: `error: ...`, status 1 (argparse's own errors: status 2).
    - Ctrl-C, SIGTERM and SIGHUP, which raise KeyboardInterrupt inside: `interrupted`, status 128 + signal number.
    - Warnings: `warning: ...`.
    """
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    handlers = {}
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) == signal.SIG_DFL:  # stays ignored under nohup
            handlers[number] = signal.signal(number, functools.partial(_interrupt, os.getpid()))
    try:
        yield
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        lines = str(error).strip().splitlines()
        line = lines[-1] if lines else "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        # A DataLoader worker's error arrives as its traceback, with the message as the last line.
        print(f"error: {line.removeprefix(f'{type(error).__name__}: ')}", file=sys.stderr)
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


def require(*packages: str) -> None:
    """Raises ValueError unless these packages (pip's names) are installed; it names those that are missing."""
    modules = {"scikit-image": "skimage"}  # others are imported by pip's name, with _ for -
    missing = [name for name in packages if not find_spec(modules.get(name, name.replace("-", "_")))]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be installed first: pip install {' '.join(missing)}")
