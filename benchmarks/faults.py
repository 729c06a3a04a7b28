"""Faults with hostile checkpoints, kills, a full disk and long batches: python benchmarks/faults.py [PART ...].

Each part prints its result; the faults come last.
"""

import argparse
import collections
import hashlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from fuzz import Watched

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WEIGHTS = ROOT / "runs/pretrained/deepfuse.pth"
LARGE = 1e9  # bytes of memory: more for one file is a fault
OTHER = 20  # levels, mean distance of pictures that are alike: other settings move them by up to 14, nonsense by 100


# Hostile checkpoints


def pickled(steps: bytes) -> bytes:
    """Returns a .pth whose pickle consists of these instructions."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + steps + b".")
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
    return file.getvalue()


def call(function: str, argument: bytes) -> bytes:
    """Returns a .pth that calls a "module name" with the value made by the pickle instructions `argument`."""
    return pickled(b"c" + function.replace(" ", "\n").encode() + b"\n" + argument + b"\x85R")


def text(content: str) -> bytes:
    data = content.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


NESTED = b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(60))  # ((..., ...), ...)


def with_property(graph: bytes, name: str, value: str) -> bytes:
    """Returns an ONNX file with another value of one of its metadata."""
    import onnx

    model = onnx.load_from_string(graph)
    next(one for one in model.metadata_props if one.key == name).value = value
    return model.SerializeToString()


def bombs(rng: random.Random) -> Iterator[tuple[str, bytes | Callable[[Path], None]]]:
    """Yields the name of a hostile checkpoint, and its bytes or a function that makes it at a path."""
    import torch

    from models import fuse_model

    def saved(content: object) -> bytes:
        file = io.BytesIO()
        torch.save(content, file)
        return file.getvalue()

    model = fuse_model(weights=WEIGHTS)
    whole = {"name": model.name, "arch": asdict(model.arch), "model": model.state_dict()}
    odd = (0, -1, 10**4, 10**6, 2**63, 0.5, float("nan"), float("inf"), True, None, "x", [8], (), (10**6,) * 3)
    for field in whole["arch"]:
        for value in odd:
            yield f"{field} = {value!r}", saved(whole | {"arch": whole["arch"] | {field: value}})
    for value in ("DeepFuse", "x" * 10**5, 3, None, ["DeepFuse"], {}):
        yield f"name = {str(value)[:20]!r}", saved(whole | {"name": value})
    for value in (None, 3, [], {"channels": {}}, {"unknown": 1}, {3: 4}):
        yield f"arch = {value!r}", saved(whole | {"arch": value})
    first = next(iter(whole["model"]))
    shape = whole["model"][first].shape
    for name, value in {
        "nan": torch.full(shape, float("nan")),
        "expanded": torch.zeros(1).expand(10**6, 10**6),
        "meta": torch.empty(shape, device="meta"),
        "complex": torch.zeros(shape, dtype=torch.complex64),
        "sparse": torch.zeros(shape).to_sparse(),
        "integers": torch.zeros(shape, dtype=torch.int64),
        "list": [1.0],
        "none": None,
    }.items():
        yield f"weight: {name}", saved(whole | {"model": whole["model"] | {first: value}})
    yield "weight of no name", saved(whole | {"model": whole["model"] | {7: torch.zeros(3)}})
    yield "no weights", saved(whole | {"model": {}})
    good = saved(whole)
    for place in range(0, len(good), len(good) // 12):
        yield f"first {place} bytes", good[:place]
    for _ in range(24):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 8))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield "changed bits", bytes(data)

    for function in ("os system", "builtins eval", "builtins exec", "posix system", "subprocess Popen", "builtins open",
                     "torch load", "torch.hub load", "numpy load", "builtins getattr", "importlib import_module",
                     "torch.serialization load", "pickle loads", "builtins __import__", "shutil rmtree"):  # fmt: skip
        yield f"code: {function}", call(function, text(f"touch {ROOT}/ran"))
    yield "plain pickle of code", pickle.dumps({"model": print}, protocol=2)
    yield (
        "a billion bytes, counted",
        pickled(b"ccollections\nCounter\ncbuiltins\nbytearray\nJ" + (2**30).to_bytes(4, "little") + b"\x85R\x85R"),
    )
    yield "punycode", pickled(b"c_codecs\nencode\n" + text("".join(map(chr, range(0x4E00, 0x9FFF))) * 9)
                              + text("punycode") + b"\x86R")  # fmt: skip
    yield "deep key", pickled(b"}" + b")" + b"\x85" * 400000 + b"K\x01s")
    yield "deep list", pickled(b"]" * 100000 + b"a" * 99999)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(2**30))
    yield "a billion bytes, compressed", file.getvalue()
    file = io.BytesIO()
    np.savez_compressed(file, **{f"arr_{i}": np.zeros((64, 64, 7, 700), np.float32) for i in range(6)})
    yield "large .npz", file.getvalue()
    header = b"\x93NUMPY\x01\0" + (118).to_bytes(2, "little")
    for kind, shape in (("<f4", "(99999999999,)"), ("|O", "()"), ("<f4", "(-1, 2, 3, 4)")):
        described = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for i in range(6):
                archive.writestr(f"arr_{i}.npy", header + described.ljust(117).encode() + b"\n")
        yield f".npz of {described}", file.getvalue()
    for nested in (b"}" + NESTED + b"K\x01s", b"}" + text("model") + b"}" + NESTED + b"K\x01ss"):
        yield "keys that hash for ever", pickled(nested)
    for kind in (torch.bool, torch.uint8, torch.float16):
        noise = torch.randint(0, 60000, whole["model"][first].shape).to(kind)
        yield f"weights of {kind}", saved(whole | {"model": whole["model"] | {first: noise}})
    graph = WEIGHTS.with_suffix(".onnx").read_bytes()
    for name, value in (
        (name, value) for name in (b"decision_pixels", b"exposures") for value in ("-7", "0", "nan", "x", "9" * 12)
    ):
        yield f"ONNX: {name!r} is {value}", with_property(graph, name.decode(), value)
    for _ in range(60):
        data = bytearray(graph)
        for _ in range(rng.choice((1, 4, 40))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        yield (
            "ONNX: changed bytes",
            bytes(data[: len(data) * rng.randrange(1, 21) // 20] if rng.random() < 0.3 else data),
        )
    settings = json.dumps({"num_epochs": 3, "lr": 1e-4, "image_path": ["a"], "seed": 1, "resumed": []}).encode()
    yield "settings: brackets", b"[" * 200_000
    for _ in range(60):
        data = bytearray(settings)
        for _ in range(rng.choice((1, 2, 9))):
            data[rng.randrange(len(data))] = rng.choice(b'{}[]",:0-9eN\\\xff\0')
        yield "settings: changed bytes", bytes(data)
    yield "empty", b""
    yield "noise", rng.randbytes(5000)
    yield "pipe", os.mkfifo
    yield "folder", Path.mkdir
    yield "device", lambda path: path.symlink_to("/dev/zero")
    yield "hole", lambda path: (path.touch(), os.truncate(path, 2**40))
    yield "link to itself", lambda path: path.symlink_to(path)


def loader() -> Callable[[str], str]:
    """Returns a function: file of weights or settings -> "loaded", "refused", "refused when it fuses", or a fault.

    Weights that load fuse a small pair, whose picture must be like that of the undamaged weights.
    """
    from configs import stored_settings
    from utils.errors import UserError
    from utils.fusing.fusion import Fuser

    defaults = {"num_epochs": 100, "lr": 1e-4, "image_path": ["data_train"], "seed": 0}
    pair = [cv2.imread(str(ROOT / f"data_test/courtyard/{name}")) for name in ("0_ev-4.jpg", "2_ev+2.jpg")]
    pair = [cv2.resize(shot, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA) for shot in pair]
    expected = Fuser.from_checkpoint(WEIGHTS).fuse(pair).astype(int)

    def load(path: str) -> str:
        try:
            if path.endswith(".json"):
                stored_settings(Path(path), defaults)
                return "loaded"
            fuser = Fuser.from_checkpoint(path)
        except (UserError, OSError) as error:
            line = str(error)
            return "refused" if path in line and "\n" not in line and len(line) < 600 else f"unclear: {line[:300]}"
        try:
            off = np.abs(fuser.fuse(pair) - expected).mean()
        except UserError:
            return "refused when it fuses"
        return "loaded" if off < OTHER else f"fuses another picture, {off:.0f} levels off"

    return load


def checkpoints(folder: Path, count: int) -> list[str]:
    """Returns the faults of loading hostile checkpoints."""
    watched, faults, loaded = Watched(loader), [], []
    refused, late, slowest, largest = 0, 0, 0.0, 0
    for name, content in bombs(random.Random(0)):
        path = folder / {"ONNX": "weights.onnx", "settings": "settings.json"}.get(name.split(":")[0], "weights.pth")
        content(path) if callable(content) else path.write_bytes(content)
        answer, seconds, memory = watched.ask(str(path))
        path.rmdir() if path.is_dir() else path.unlink()
        refused += answer == "refused"
        late += answer == "refused when it fuses"
        loaded += [name] if answer == "loaded" else []
        slowest, largest = max(slowest, seconds), max(largest, memory)
        if answer not in ("loaded", "refused", "refused when it fuses") or memory > LARGE:
            faults.append(f"{name}: {answer}, {seconds:.1f} s, {memory / 1e6:.0f} MB")
    watched.close()
    if (ROOT / "ran").exists():
        faults.append("code ran")
    names = ", ".join(f"{count} {name}" for name, count in collections.Counter(loaded).items())
    counts = f"{refused} refused, {late} when they fuse, {len(faults)} faults, {len(loaded)} loaded ({names})"
    print(f"Hostile checkpoints, ONNX files and settings: {counts}, {slowest:.1f} s, {largest / 1e6:.0f} MB at most")
    return faults


# Kills, and a full disk


def infer(*arguments: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, ROOT / "run_infer.py", *arguments, "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def scenes(folder: Path) -> Path:
    """Returns a folder of 12 scenes: the samples, twice, so small that the network takes little of the time."""
    for shot in (ROOT / "data_test").glob("*/*.jpg"):
        small = cv2.resize(cv2.imread(str(shot)), (96, 64), interpolation=cv2.INTER_AREA)
        for i in range(2):
            target = folder / f"in/{shot.parent.name}{i}" / shot.name
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), small)
    return folder / "in"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def kills(folder: Path, count: int) -> list[str]:
    """Returns the faults of batches that are killed at random times and continued with --skip_existing."""
    source, faults, rng, done = scenes(folder), [], random.Random(0), 0
    start = time.perf_counter()
    whole = infer("--input_dir", source, "--output_dir", folder / "whole")
    whole.communicate()
    seconds, expected = time.perf_counter() - start, contents(folder / "whole")
    kinds = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]
    while done < count:
        out = folder / "out"
        run = infer("--input_dir", source, "--output_dir", out, "--skip_existing")
        kind = kinds[done % 3]
        try:
            run.wait(rng.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            run.send_signal(kind)
            done += 1
        said = run.communicate()[1]
        found = contents(out) if out.exists() else {}
        hidden = [name for name in found if name.startswith(".")]
        if any(expected.get(name) != content for name, content in found.items() if name not in hidden):
            faults.append(f"kill {done}, {kind.name}: a picture is not as it should be")
        if run.returncode in (128 + kind, 0) and hidden:
            faults.append(f"kill {done}, {kind.name}: {hidden} left behind")
        if "Traceback" in said or run.returncode not in (0, -kind, 128 + kind):
            faults.append(f"kill {done}, {kind.name}: status {run.returncode}, {said[-300:]}")
        if run.returncode == 0:
            if found.keys() - set(hidden) != expected.keys():
                faults.append(f"kill {done}: not all scenes were fused in the end")
            shutil.rmtree(out)
    print(f"Kills: {done} of batches of {len(expected)} scenes, which went on to the same pictures")
    return faults


def disk(folder: Path, count: int) -> list[str]:
    """Returns the faults when files cannot grow beyond 2,000 bytes, as on a full disk."""

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    faults, out = [], folder / "full"
    out.mkdir()
    (out / "fused.png").write_text("before")
    for name, arguments, expected in (
        ("pair", ("-o", out / "fused.png"), "fused.png"),
        ("folder", ("--input_dir", scenes(folder), "--output_dir", out / "many"), "12 of 12"),
    ):
        run = infer(*arguments, preexec_fn=full)
        said = run.communicate()[1]
        if run.returncode != 1 or "Traceback" in said or expected not in said.splitlines()[-1]:
            faults.append(f"full disk, {name}: status {run.returncode}, {said[-300:]}")
    left = sorted(path.name for path in out.rglob("*") if path.is_file())
    if left != ["fused.png"] or (out / "fused.png").read_text() != "before":
        faults.append(f"full disk: {left} were left, or an older picture was lost")
    print("Full disk: a pair and a batch of 12 scenes")
    return faults


def batch(folder: Path, count: int) -> list[str]:
    """Prints how memory grows over a folder of small scenes of different sizes; returns no faults."""
    rng, number = np.random.default_rng(0), 10 * count
    for scene in range(number):
        (folder / f"in/{scene}").mkdir(parents=True)
        over = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), rng.permutation(rng.integers((16, 16), (65, 600))))
        for name, shot in (("0", over // 3), ("1", over)):
            cv2.imwrite(str(folder / f"in/{scene}/{name}.png"), shot)
    for weights in (WEIGHTS, WEIGHTS.with_suffix(".onnx")):
        out, marks = folder / weights.suffix, [number // 100, number // 10, number // 2, number - number // 100]
        command = [sys.executable, ROOT / "run_infer.py", "--input_dir", folder / "in", "--output_dir", out]
        run = subprocess.Popen([*command, "--weights", weights, "--device", "cpu"], stderr=subprocess.DEVNULL)
        while run.poll() is None and marks:
            time.sleep(0.05)
            if out.exists() and len(os.listdir(out)) >= marks[0]:
                memory = int(Path(f"/proc/{run.pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1e3
                print(f"{weights.name}: {memory:.0f} MB after {marks.pop(0)} scenes", flush=True)
        run.wait()
    return []


PARTS = {"checkpoints": checkpoints, "kills": kills, "disk": disk, "batch": batch}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS), help="what to try")
    parser.add_argument("--kills", type=int, default=100, help="number of kills; batch: a tenth of the scenes")
    args = parser.parse_args()
    faults = []
    for part in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            faults += PARTS[part](Path(folder), args.kills)
    print("\n".join(faults) or "No faults")
    sys.exit(bool(faults))
