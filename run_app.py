"""A page in the browser that fuses the exposures dropped on it, on this machine alone: python run_app.py."""

import argparse
import contextlib
import shutil
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from configs import get_app_args
from utils.errors import Defect, UserError, exit_on_error, told
from utils.fusing.fusion import Fuser
from utils.page.desk import Worker
from utils.page.server import PageServer


def main(args: argparse.Namespace) -> None:
    beside = sorted(str(path) for path in Path(args.weights).parent.glob("*") if path.suffix in (".pth", ".onnx"))
    weights = {Path(path).name: path for path in [args.weights, *beside]}  # to choose from
    worker = Worker(lambda name: Fuser.from_checkpoint(weights[name], args.device), report)
    with temporary_folder() as folder, listen(args, folder, worker, list(weights)) as server:
        address = f"http://{own_address(args.host)}:{args.port}"
        worker.start()
        if server.alone:
            print(f"The page is {address}, for this machine alone; Ctrl-C ends it", flush=True)
        else:
            server.announce = lambda token: print(f"For one more browser, once: {address}/?token={token}", flush=True)
            print("Whoever is in this network can read what is sent: use it at home. Ctrl-C ends the page", flush=True)
            server.announce(server.invite())
        if args.browser:
            webbrowser.open(address + (f"/?token={server.token}" if server.token else ""))
        try:
            server.serve_forever()
        finally:
            for desk in server.desks.values():
                desk.clear()
            worker.stop()


def report(defect: Defect) -> None:
    print(told(defect), file=sys.stderr, flush=True)


def listen(args: argparse.Namespace, folder: Path, worker: Worker, weights: list[str]) -> PageServer:
    """Returns a server that listens already; raises UserError if it cannot."""
    try:
        return PageServer((args.host, args.port), folder, worker, weights)
    except OSError as error:
        line = f"cannot listen at {args.host}, port {args.port} ({error.strerror or error})"
        raise UserError(f"{line}: is the page open already? Otherwise try --port {args.port + 1}") from error


def own_address(host: str) -> str:
    """Returns the address of this machine to open the page by: `host`, or one in the network where host is all."""
    if host not in ("0.0.0.0", "::"):
        return f"[{host}]" if ":" in host else host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: the system only chooses the network
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields a folder for uploads and pictures, deleted at the end; deletes also those that killed runs have left.

    A run holds the lock of its folder, and the system frees that however the run ends.
    """
    for old in Path(tempfile.gettempdir()).glob("deepfuse-page-*"):
        with contextlib.suppress(OSError):
            with held(old):
                pass
            shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="deepfuse-page-", ignore_cleanup_errors=True) as name, held(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder; raises OSError if another process holds it."""
    with open(folder / "lock", "wb") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


if __name__ == "__main__":
    with exit_on_error():
        main(get_app_args())
