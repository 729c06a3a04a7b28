"""Time and peak memory of run_infer.py and OpenCV's MergeMertens: python benchmarks/speed.py [ROW ...] [--rounds N].

Both do the same from file to file: read JPEGs, fuse, write a JPEG of the same kind. Whole processes alternate, so that
other work on the machine slows both alike; medians are printed. The exposures are resized from data_test.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# This process must stay small: a child's peak is never below its parent's, so nothing else is imported here.
ROOT = Path(__file__).resolve().parents[1]
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}  # Python keeps what it compiles, as on most machines
SCENES = 4  # fused by one running process; the first is not counted
WRITE = "[cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]"
MAKE = f"""
import sys
import cv2
out, width, height, count, *sources = sys.argv[1:]
for k in range(int(count)):
    nearest = round(k * (len(sources) - 1) / (int(count) - 1))
    image = cv2.resize(cv2.imread(sources[nearest]), (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
    brighter = 1 + 0.1 * (k - nearest * (int(count) - 1) / (len(sources) - 1))  # no two are the same
    cv2.imwrite(f"{{out}}/{{k}}.jpg", cv2.convertScaleAbs(image, alpha=brighter), {WRITE})
"""
MERTENS = f"""
import sys, time
import cv2
scenes, out, *paths = sys.argv[1:]
times = []
for _ in range(int(scenes)):
    fused = cv2.createMergeMertens().process([cv2.imread(path) for path in paths])
    cv2.imwrite(out, cv2.multiply(fused, (255,) * 4, dtype=cv2.CV_8U), {WRITE})
    del fused
    times.append((time.perf_counter(), time.process_time()))
print(*((last - first) / max(1, len(times) - 1) for first, last in zip(times[0], times[-1])))
"""
FOLDER = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from utils.fusing.fusion import Fuser, fuse_scenes
from utils.pictures.scenes import Scene
scenes, out, weights, device, *paths = sys.argv[1:]
paths = [Path(path) for path in paths]
scenes = [Scene(str(k), paths, out=Path(out).with_name(f"fused{{k}}.jpg")) for k in range(int(scenes))]
times = []
for end in fuse_scenes(scenes, lambda: Fuser.from_checkpoint(weights, device)):
    if end.error:
        raise end.error
    times.append((time.perf_counter(), time.process_time()))
print(*((last - first) / (len(times) - 1) for first, last in zip(times[0], times[-1])))
"""
STAGES = f"""
import sys, time
start = time.perf_counter()
sys.path.insert(0, {str(ROOT)!r})
import run_infer
from configs import get_infer_args
from utils.fusing import fusion, network
spent = {{"load": time.perf_counter() - start}}
def timed(name, function):
    def call(*arguments):
        start = time.perf_counter()
        result = function(*arguments)
        spent[name] = spent.get(name, 0) + time.perf_counter() - start
        return result
    return call
for place, name in (
    (fusion, "read_exposures"), (fusion.Fuser, "fuse"), (network, "develop"), (fusion, "write_image"),
):
    setattr(place, name, timed(name, getattr(place, name)))
fusion.Fuser.from_checkpoint = staticmethod(timed("load", fusion.Fuser.from_checkpoint))
run_infer.main(get_infer_args(sys.argv[1:]))
spent["fuse"] -= spent["develop"]
print(*(spent[name] for name in ("load", "read_exposures", "fuse", "develop", "write_image")))
"""
STAGE_NAMES = "start-up", "reading", "deciding", "blending", "writing"


def main(args: argparse.Namespace) -> None:
    print(f"{processor()}, {os.cpu_count()} cores; medians of {args.rounds}; DeepFuse / MergeMertens\n")
    print(
        "| megapixels | exposures | wall, s | times Mertens | per scene in a running process, s | times Mertens "
        f"| its CPU, s | times Mertens | CPU, s | peak memory, GB | times Mertens | {', s | '.join(STAGE_NAMES)}, s |"
    )
    print("|" + "---:|" * (11 + len(STAGE_NAMES)))
    for width, height, count in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            sources = sorted(map(str, (ROOT / "data_test/interior").glob("*.jpg")))
            run("-c", MAKE, folder, width, height, count, *sources)
            print(row(args, f"{width * height / 1e6:.0f}", [f"{folder}/{k}.jpg" for k in range(count)]), flush=True)
    print(
        "\nThe last columns are the stages of one process. PyTorch is imported (start-up) while the shots are read, so "
        "these two overlap. Deciding is all work at the decision's size, the shrinking included."
    )


def row(args: argparse.Namespace, megapixels: str, shots: list[str]) -> str:
    """Returns the row of the table for these shots of one scene."""
    out = f"{Path(shots[0]).parent}/fused.jpg"
    infer = [*shots, "-o", out, "--weights", args.weights, "--device", args.device]
    commands = {
        "ours": [f"{ROOT}/run_infer.py", *infer],
        "mertens": ["-c", MERTENS, 1, out, *shots],
        "ours, running": ["-c", FOLDER, SCENES, out, args.weights, args.device, *shots],
        "mertens, running": ["-c", MERTENS, SCENES, out, *shots],
        "stages": ["-c", STAGES, *infer],
    }
    found = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            found[name].append(run(*command))

    def median(name: str, what: int) -> float:
        return statistics.median(result[what] for result in found[name])

    def both(what: int, ours: str = "ours", mertens: str = "mertens") -> list[str]:
        a, b = median(ours, what), median(mertens, what)
        return [f"{a:.2f} / {b:.2f}", f"{a / b:.2f}"]

    running = [cell for what in (3, 4) for cell in both(what, "ours, running", "mertens, running")]
    stages = [f"{median('stages', 3 + k):.2f}" for k in range(len(STAGE_NAMES))]
    cells = [megapixels, str(len(shots)), *both(0), *running, both(1)[0], *both(2), *stages]
    return f"| {' | '.join(cells)} |"


def run(*arguments: object) -> tuple[float, ...]:
    """Returns wall and CPU seconds, peak memory in GB, and the numbers of the last line printed by a Python process.

    All are infinite if it fails, for example without enough memory.
    """
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=said, preexec_fn=limit_memory, env=os.environ | COMPILED)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        last = (said.read().splitlines() or [""])[-1].split()
    if process.returncode:
        return (float("inf"),) * (3 + len(STAGE_NAMES))
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    numbers = map(float, last) if last and last[0][0].isdigit() else ()
    return wall, used.ru_utime + used.ru_stime, peak, *numbers


def limit_memory() -> None:
    """Limits this process to 3/4 of the machine's memory, so that it fails before others do."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_DATA, (memory * 3 // 4, memory))


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def size_and_count(text: str) -> tuple[int, int, int]:
    """Returns width, height and number of exposures of "WIDTHxHEIGHT,COUNT"."""
    size, count = text.split(",")
    width, height = map(int, size.split("x"))
    return width, height, int(count)


if __name__ == "__main__":
    sizes = (1732, 1155), (4000, 3000), (6000, 4000), (12000, 8400)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "rows",
        nargs="*",
        type=size_and_count,
        metavar="WIDTHxHEIGHT,COUNT",
        default=[(*size, count) for size in sizes for count in (2, 3, 9)],
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", default=f"{ROOT}/runs/pretrained/deepfuse.pth")
    parser.add_argument("--device", default="cpu")
    main(parser.parse_args())
