"""MEF-SSIM lost by deciding on a small copy: its sides are those of the picture divided by 1, 2, 4 and 8.

    python benchmarks/decision.py ../shared/data/brackets/dev ../shared/data/brackets/dev_pairs.csv [--weights FILE]

Each pair is fused at its own size, at most --max_width wide, and scored against all shots of its scene.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from configs import shipped_weights
from utils.evaluation.metric import matlab_gray, mef_ssim, mef_ssim_lum
from utils.evaluation.scoring import read_8bit
from utils.fusing.fusion import Fuser
from utils.pictures.scenes import read_pairs

FACTORS = (1, 2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of scenes: a folder of shots per scene")
    parser.add_argument("pairs", help="CSV table of the pairs, with columns scene,under,over")
    parser.add_argument("--weights", default=shipped_weights("cpu"))
    parser.add_argument("--max_width", type=int, default=1600, help="wider pictures are shrunk first")
    args = parser.parse_args()
    fuser = Fuser.from_checkpoint(args.weights)
    fuser.network.growth = 1
    scores = []
    for scene in read_pairs(args.data, args.pairs):
        shots = {path: read_8bit(path, args.max_width) for path in scene.stack}
        pair, stack = [shots[path] for path in scene.paths], np.stack([matlab_gray(shot) for shot in shots.values()])
        for factor in FACTORS:
            height, width = stack.shape[1:]
            fuser.network.decision_pixels = (height // factor) * (width // factor)
            fused = matlab_gray(fuser.fuse(pair))
            scores.append((mef_ssim(fused, stack), mef_ssim_lum(fused, stack)))
        print(scene.name, *(f"{score:.4f}" for score, _ in scores[-len(FACTORS) :]), flush=True)
    for factor, of_scenes in zip(FACTORS, np.reshape(scores, (-1, len(FACTORS), 2)).swapaxes(0, 1), strict=True):
        mean, lum = of_scenes.mean(0)
        print(f"factor {factor}: MEF-SSIM {mean:.4f} (worst {of_scenes[:, 0].min():.4f}), -lum {lum:.4f}")


if __name__ == "__main__":
    main()
