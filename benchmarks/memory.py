"""Peak memory and time of run_infer.py by size, number and kind of the exposures: python benchmarks/memory.py.

Every row is a fresh process that reads files, fuses and writes. The exposures are enlarged from data_test.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The process that measures must be small: a child's peak is never below its parent's, so nothing else is imported here.
MAKE = """
import sys
import cv2
import numpy as np
out, width, height, suffix, bits, *sources = sys.argv[1:]
for k, source in enumerate(sources):
    image = cv2.resize(cv2.imread(source), (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(f"{out}/{k}{suffix}", image.astype(np.uint16) * 257 if bits == "16" else image)
"""
FUSE = """
import resource, sys, time
sys.path.insert(0, sys.argv[1])
from configs import get_infer_args
from run_infer import main
start = time.perf_counter()
main(get_infer_args(sys.argv[2:]))
unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss in bytes
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
print(peak, time.perf_counter() - start, time.process_time())
"""


def main(args: argparse.Namespace) -> None:
    print("| megapixels | exposures | file | peak memory, GB | time, s | CPU time, s |\n|---:|---:|---|---:|---:|---:|")
    for width, height, count, suffix, bits in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            sources = sorted(map(str, (ROOT / "data_test/interior").glob("*.jpg")))[:: 2 if count == 2 else 1][:count]
            run(MAKE, folder, width, height, suffix, bits, *sources)
            exposures = [f"{folder}/{k}{suffix}" for k in range(count)]
            options = ["--weights", args.weights, "--device", args.device, "-o", f"{folder}/fused{suffix}"]
            peak, seconds, cpu = map(float, run(FUSE, ROOT, *exposures, *options).split()[-3:])
        size = f"{width * height / 1e6:.1f}"
        cells = size, count, f"{bits}-bit {suffix[1:]}", f"{peak:.2f}", f"{seconds:.0f}", f"{cpu:.0f}"
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def run(code: str, *arguments: object) -> str:
    """Returns what Python code prints, run in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def row(text: str) -> tuple[int, int, int, str, str]:
    """Returns a row of the table of WIDTHxHEIGHT,COUNT,SUFFIX,BITS."""
    size, count, suffix, bits = text.split(",")
    width, height = map(int, size.split("x"))
    return width, height, int(count), suffix, bits


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "rows",
        nargs="*",
        type=row,
        metavar="WIDTHxHEIGHT,COUNT,SUFFIX,BITS",
        default=[
            (4000, 3000, 2, ".jpg", "8"),
            (6000, 4000, 2, ".jpg", "8"),
            (6000, 4000, 3, ".jpg", "8"),
            (6000, 4000, 2, ".tif", "16"),
            (12000, 8400, 2, ".jpg", "8"),
        ],
    )
    parser.add_argument("--weights", default=f"{ROOT}/runs/pretrained/deepfuse.pth")
    parser.add_argument("--device", default="cpu")
    main(parser.parse_args())
