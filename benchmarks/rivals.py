"""Makes the scenes of rivals.md from clones: python benchmarks/rivals.py CLONES SCENES.

CLONES holds the repositories of rivals.csv, each as CLONES/<repository's name>. SCENES gets a folder per scene, its
shots aligned, at most 1200 pixels wide, named 0.png (the darkest), 1.png and so on; and pairs.csv, the pair of each to
fuse: the shots whose mean luminances are nearest to 45 and 180 of 255. What is not there is named and left out.
"""

import csv
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from utils.errors import UserError, exit_on_error  # noqa: E402
from utils.files import read_table  # noqa: E402
from utils.pictures.image import list_images, read_image, write_image  # noqa: E402
from utils.pictures.pixels import luma, shrink  # noqa: E402
from utils.stack.align import align_exposures  # noqa: E402

WIDTH = 1200  # pixels, at most
MEANS = (45 / 255, 180 / 255)  # mean luminances of the pair


def assemble(clones: Path, scenes: Path) -> list[dict]:
    """Returns the rows of pairs.csv, of the scenes that are in the clones, after their shots are written."""
    rows = []
    for row in read_table(ROOT / "benchmarks/rivals.csv", ("scene", "repository", "folder")):
        folder, out = clones / row["repository"].split("/")[1] / row["folder"], scenes / row["scene"]
        try:
            shots = [shrink(read_image(path), width=WIDTH) for path in list_images(folder)]
            if len(shots) < 3 or len({shot.shape for shot in shots}) > 1:
                raise UserError(f"{folder}: expected three or more shots of one size, found {len(shots)}")
            shots.sort(key=lambda shot: luma(shot).mean())
            shots = [shot for shot in align_exposures(shots, "homography", leave_out=True) if shot is not None]
        except (UserError, OSError) as error:
            print(f"left out {row['scene']}: {error}")
            continue
        out.mkdir(parents=True, exist_ok=True)
        for number, shot in enumerate(shots):
            write_image(out / f"{number}.png", shot)
        under, over = (int(np.argmin([abs(luma(shot).mean() - mean) for shot in shots])) for mean in MEANS)
        rows.append({"scene": row["scene"], "under": f"{under}.png", "over": f"{over}.png"})
    return rows


def main(clones: str, scenes: str) -> None:
    rows = assemble(Path(clones), Path(scenes))
    if not rows:
        raise UserError(f"{clones} has none of the repositories of benchmarks/rivals.csv: clone them into it")
    with open(Path(scenes, "pairs.csv"), "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    print(f"{len(rows)} scenes and pairs.csv are in {scenes}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with exit_on_error():
        main(*sys.argv[1:])
