"""Time and memory of mef_ssim for a pair, on one core: python benchmarks/metric_speed.py [MEGAPIXELS ...]."""

import os
import resource
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is loaded

import cv2  # noqa: E402
import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
from utils.evaluation.metric import mef_ssim  # noqa: E402


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(sizes: list[float]) -> None:
    cv2.setNumThreads(1)
    for megapixels in sorted(sizes):
        side = round((megapixels * 1e6) ** 0.5)
        stack = np.random.default_rng(0).integers(0, 256, (2, side, side), dtype=np.uint8)
        before, start = peak_megabytes(), time.process_time()
        mef_ssim(stack[0], stack)
        seconds = time.process_time() - start
        print(
            f"{megapixels:g} MP pair: {seconds:.2f} CPU-seconds, {seconds / megapixels:.2f} per megapixel; "
            f"peak {peak_megabytes():.0f} MB, {before:.0f} MB before"
        )


if __name__ == "__main__":
    main([float(x) for x in sys.argv[1:]] or [1, 4, 12])
