"""Files that appear whole or not at all, run folders, tables, and the few lines that scripts print."""

import contextlib
import csv
import functools
import itertools
import json
import os
import subprocess
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from utils.errors import UserError

TEMPORARY = ".deepfuse-"  # prefix of files that are being written
ABANDONED = 3600  # seconds: a temporary file unchanged for longer was left by a killed run


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary name beside `path`, renamed to it at the end: `path` is never half-written.

    After an error the temporary file is removed, and an existing `path` is unchanged. Temporary files of killed runs in
    the folder are removed too. The content is flushed to the disk before the renaming.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    handle, name = tempfile.mkstemp(".part", TEMPORARY, path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's files are private
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, name):  # a full disk names no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache  # once per process: folders can be large
def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):  # another run has removed it, or another user owns it
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()


def numbered(name: str) -> Iterator[str]:
    """Yields a name, then the name with _2, _3 and so on behind it."""
    return itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))


def plain(name: str) -> str:
    """Returns a name as disks compare it that ignore case."""
    return unicodedata.normalize("NFC", name).casefold()


def make_run_folder(root: str | os.PathLike) -> Path:
    """Returns a new folder root/train_MM-DD_HH-MM, with a number added if it exists already."""
    for name in numbered(f"train_{datetime.now():%m-%d_%H-%M}"):
        with contextlib.suppress(FileExistsError):
            Path(root, name).mkdir(parents=True)
            break
    return Path(root, name)


def write_json(path: str | os.PathLike, content: dict) -> None:
    """Writes a dict as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_table(path: str | os.PathLike, columns: Sequence[str]) -> list[dict[str, str]]:
    """Returns the rows of a CSV table with at least these columns.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no CSV in UTF-8, has no row, lacks a column, or has an empty cell in one of these columns.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such table")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # Excel writes a byte-order mark
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV table in UTF-8: {error}") from error
    if not rows or not all(row.get(column) for row in rows for column in columns):
        raise UserError(f"{path}: expected a CSV table, rows with the columns {', '.join(columns)}, all filled")
    return rows


def git_sha() -> str:
    """Returns the commit of this code, with "-dirty" if it has changes; "unknown" without git."""
    try:
        command = ["git", "describe", "--always", "--abbrev=12", "--dirty"]
        here = Path(__file__).parent
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def settings_block(settings: dict) -> str:
    """Returns the settings as lines `name: value` between two rules, aligned."""
    width = max(map(len, settings), default=0)
    rows = [f"{name:>{width}}: {value}" for name, value in settings.items()]
    rule = "-" * max(map(len, rows), default=0)
    return "\n".join([rule, *rows, rule])
