"""The error of the alignment for known shifts and rotations: python benchmarks/alignment.py [FOLDER].

In each scene of FOLDER (data_test) the darkest and the brightest exposure are moved by a known amount and aligned to
the middle one. The residual is the largest distance, over the picture, between found and true position.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from utils.pictures.image import read_image  # noqa: E402
from utils.pictures.scenes import find_scenes  # noqa: E402
from utils.stack.align import _gray, _homography, _shift  # noqa: E402


def movement(rng: np.random.Generator, height: int, width: int, turns: bool) -> np.ndarray:
    """Returns a random 3x3 map of pixels: shift up to 30 px; with `turns` also up to 2 degrees and 1 % zoom."""
    shift = np.array([[1, 0, rng.integers(-30, 31)], [0, 1, rng.integers(-30, 31)], [0, 0, 1]], float)
    angle, zoom = (rng.uniform(-2, 2), rng.uniform(0.99, 1.01)) if turns else (0, 1)
    return shift @ np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom), [0, 0, 1]])


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    residuals = {"mtb, shifts": [], "homography, rotations": []}
    for scene in find_scenes(folder)[0]:
        grays = [_gray(read_image(path)) for path in scene.paths]
        dark, *_, bright = sorted(grays, key=np.mean)
        middle = sorted(grays, key=np.mean)[len(grays) // 2]
        height, width = middle.shape
        corners = np.float64([[[0, 0], [width, 0], [0, height], [width, height]]])
        for gray in (dark, bright):
            for name, estimate, turns in zip(residuals, (_shift, _homography), (False, True), strict=True):
                true = movement(rng, height, width, turns)
                border = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REFLECT}
                found = estimate(middle, cv2.warpPerspective(gray, true, (width, height), **border))
                distance = cv2.perspectiveTransform(corners, found) - cv2.perspectiveTransform(corners, true)
                residuals[name].append(np.linalg.norm(distance, axis=2).max())
    for name, values in residuals.items():
        below = np.mean(np.array(values) < 0.5)
        print(
            f"{name}: {len(values)}, {below:.0%} below 0.5 px; median {np.median(values):.2f}, worst {max(values):.2f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "data_test")
