"""How well a network reconstructs photographs: python benchmarks/reconstruction.py FOLDER --weights W.

A photograph's luminance is fused with itself and rounded to 8 bits; scikit-image's SSIM compares the two pictures.
It tells how well identical exposures are reproduced; the weights that fuse best need not be the best here.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from utils.errors import exit_on_error  # noqa: E402
from utils.evaluation.metric import ssim  # noqa: E402
from utils.fusing.fusion import Fuser  # noqa: E402
from utils.pictures.image import list_images, read_image  # noqa: E402
from utils.pictures.pixels import from_float, luma, to_float  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="photographs, searched recursively")
    parser.add_argument("--weights", required=True)
    args = parser.parse_args()
    fuser = Fuser.from_checkpoint(args.weights)
    scores, differences = [], []
    for path in list_images(args.folder, recursive=True):
        y = luma(read_image(path))
        fused = to_float(fuser.fuse([from_float(y, np.uint16)] * 2))
        pictures = from_float(y, np.uint8), from_float(fused, np.uint8)
        scores.append(ssim(*pictures))
        differences.append(cv2.absdiff(*pictures).mean())
    print(f"SSIM of {len(scores)} photographs: mean {np.mean(scores):.4f}, lowest {np.min(scores):.4f}")
    print(f"mean difference in grey levels: mean {np.mean(differences):.2f}, highest {np.max(differences):.2f}")


if __name__ == "__main__":
    with exit_on_error():
        main()
