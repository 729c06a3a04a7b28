"""Fuse scenes with several methods, score the saved pictures, and lay the scores out: what run_eval.py is made of."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils import util_metric as metric
from utils.util_fusion import Fuser
from utils.util_image import IMAGE_SUFFIXES, from_float, list_images, read_image, to_float, write_image
from utils.utils import read_table

Method = Callable[[Sequence[np.ndarray]], np.ndarray]  # exposures (H, W, 3) BGR uint8 -> picture of the same form
Row = dict[str, str | float]  # one scene and method: "scene", "method" and a value for every column


@dataclass(frozen=True)
class Column:
    """A score: its key in the CSV file, its heading and format in tables, and what exactly it is."""

    key: str
    heading: str
    form: str
    definition: str


FIDELITY = (
    Column(
        "mef_ssim",
        "MEF-SSIM",
        ".4f",
        "Ma, Zeng and Wang, TIP 2015: structure of 11x11 patches against one blended from all exposures, 3 scales, no "
        "luminance term; higher is better",
    ),
    Column(
        "mef_ssim_lum",
        "MEF-SSIM-lum",
        ".4f",
        "the variant that MEFNet is trained with, TIP 2020: structure against the exposure of largest variance, "
        "1 scale, zero padding, times a luminance term; higher is better",
    ),
    Column("q_abf", "Q_abf", ".4f", "Xydeas and Petrovic 2000: share of the exposures' edges that is kept; 0..1"),
    Column(
        "viff", "VIFF", ".4f", "Han et al. 2013: visual information that is kept; more contrast gives more, even > 1"
    ),
)
PROFILE = tuple(
    Column(f"scale_{2**i}", f"1/{2**i}", ".3f", "mean of the MEF-SSIM map at this dyadic scale") for i in range(6)
)
LOOK = (
    Column("entropy", "entropy", ".3f", "bits of the gray histogram; noise raises it"),
    Column("average_gradient", "gradient", ".3f", "average gradient as in MEFB; noise and halos raise it"),
    Column("standard_deviation", "SD", ".2f", "standard deviation of gray"),
    Column("spatial_frequency", "SF", ".2f", "spatial frequency as in MEFB; noise and sharpening raise it"),
    Column("colourfulness", "colour", ".2f", "colourfulness of Hasler and Suesstrunk 2003, on RGB"),
    Column("mean_luma", "luma", ".1f", "mean gray, 0..255"),
    Column("clipped", "clipped %", ".2f", "pixels of gray 0 or 255, in percent"),
)
REFERENCE = (
    Column("psnr", "PSNR", ".2f", "dB against the reference picture, over R, G and B"),
    Column("ssim", "SSIM", ".4f", "Wang 2004 against the reference picture, Gaussian window, gray"),
)
LPIPS = Column("lpips", "LPIPS", ".4f", "Zhang et al. 2018 (AlexNet) to the reference picture; lower is better")


@dataclass(frozen=True)
class EvalScene:
    """A scene: its name, the exposures to fuse, and those to score against."""

    name: str
    fused: tuple[Path, ...]
    scored: tuple[Path, ...]


def find_eval_scenes(
    folder: str | os.PathLike, pairs: str | os.PathLike | None = None, full_stack: bool = False
) -> list[EvalScene]:
    """Returns the scenes of a folder with one folder of exposures a scene, sorted by name.

    Args:
        folder: Holds the scenes' folders.
        pairs: CSV table with the columns scene, under and over, which picks scenes and two exposures of each.
        full_stack: Score against every exposure in the scene's folder, also where `pairs` picks two.

    Raises:
        FileNotFoundError: No such folder or table.
        ValueError: No scene in the folder, or a table without these columns.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of scenes")
    if pairs is None:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not names:
            raise ValueError(f"{folder}: expected one folder of exposures a scene, found no folder in it")
        stacks = [tuple(list_images(folder / name)) for name in names]
        return [EvalScene(name, stack, stack) for name, stack in zip(names, stacks, strict=True)]
    scenes = []
    for name, under, over in read_pairs(pairs):
        pair = (folder / name / under, folder / name / over)
        stack = tuple(list_images(folder / name)) if full_stack and (folder / name).is_dir() else pair
        scenes.append(EvalScene(name, pair, stack))
    return scenes


def read_pairs(path: str | os.PathLike) -> list[tuple[str, str, str]]:
    """Returns (scene, under, over) of every row of a CSV table with these columns.

    Raises:
        ValueError: As `read_table`, or a scene occurs twice.
    """
    rows = [(row["scene"], row["under"], row["over"]) for row in read_table(path, ("scene", "under", "over"))]
    names = [name for name, _, _ in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: expected one row a scene, got {len(names)} rows for {len(set(names))} scenes")
    return rows


def average(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the plain average of exposures (H, W, 3) uint8, halves rounded up."""
    return np.floor(np.mean(images, axis=0) + 0.5).astype(np.uint8)


def mertens(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns OpenCV's MergeMertens (default weights) of exposures (H, W, 3) uint8, clipped to 0..255 and rounded."""
    return from_float(cv2.createMergeMertens().process(list(images)), np.uint8)


def enfuse(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns what the program enfuse (default settings) makes of exposures (H, W, 3) BGR uint8.

    Raises:
        ValueError: enfuse fails; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.png" for i in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            write_image(path, image)
        out = Path(folder) / "fused.png"
        done = subprocess.run(["enfuse", "-o", out, *paths], capture_output=True, text=True)
        if done.returncode or not out.is_file():
            raise ValueError(f"enfuse failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return read_image(out)


def enfuse_version() -> str | None:
    """Returns enfuse's version line, or None where it is not installed."""
    if shutil.which("enfuse") is None:
        return None
    return subprocess.run(["enfuse", "--version"], capture_output=True, text=True).stdout.splitlines()[0]


@functools.cache
def load_fuser(weights: str, device: str) -> Fuser:
    """Returns the Fuser of a checkpoint, loaded once a process."""
    return Fuser.from_checkpoint(weights, device)


def fuse_with_weights(images: Sequence[np.ndarray], weights: str, device: str) -> np.ndarray:
    """Returns the picture that a checkpoint's network makes of exposures (H, W, 3) BGR uint8."""
    return load_fuser(weights, device).fuse(images)


BASELINES: dict[str, Method] = {"average": average, "mertens": mertens, "enfuse": enfuse}


def named_path(text: str, taken: Container[str]) -> tuple[str, str]:
    """Returns (name, path) of "NAME=PATH", or of "PATH" with the file's name without its suffix.

    Raises:
        ValueError: The name is taken, or cannot name a folder.
    """
    name, equals, path = text.partition("=")
    if not equals:
        name, path = Path(text).stem, text
    if name in taken:
        raise ValueError(f"two methods are called {name}: give NAME={path} with another name")
    if not name or name != Path(name).name:
        raise ValueError(f"a method's name must be that of a folder, got {name!r} in {text}")
    return name, path


def read_8bit(path: str | os.PathLike) -> np.ndarray:
    """Returns a picture (H, W, 3) BGR uint8; one of 16 bits is rounded to 8."""
    image = read_image(path)
    return image if image.dtype == np.uint8 else from_float(to_float(image), np.uint8)


def picture_of(folder: Path, scene: str) -> Path:
    """Returns folder/<scene>.png, or the same with another picture suffix where only that is there."""
    others = (path for suffix in IMAGE_SUFFIXES if (path := folder / f"{scene}{suffix}").is_file())
    png = folder / f"{scene}.png"
    return png if png.is_file() else next(others, png)


def score_scene(
    scene: EvalScene,
    methods: dict[str, Method],
    folders: dict[str, Path],
    reference: Path | None = None,
    lpips: bool = False,
    sheets: Path | None = None,
) -> list[Row]:
    """Fuses a scene with every method, saves the pictures, reads them back and returns a row of scores a method.

    Args:
        scene: What to fuse and what to score against.
        methods: Those to run; their pictures are saved as folders[name]/<scene>.png.
        folders: Where each method's pictures lie, those of `methods` and any that were made elsewhere.
        reference: Folder of ground truth <scene>.png, or None.
        lpips: Whether to compute LPIPS too, where there is a reference.
        sheets: Folder for the contact sheet <scene>.png, or None.

    Raises:
        ValueError, OSError: Anything that is wrong with this scene's pictures.
    """
    if len(scene.fused) < 2:
        raise ValueError(f"expected two or more exposures, found {len(scene.fused)}")
    exposures = {path: read_8bit(path) for path in dict.fromkeys(scene.fused + scene.scored)}
    first = next(iter(exposures.values())).shape
    for path, image in exposures.items():
        if image.shape != first:
            raise ValueError(f"{path}: expected the other exposures' size {_size(first)}, got {_size(image.shape)}")
    truth = None if reference is None else _same_size(picture_of(reference, scene.name), first)
    for name, method in methods.items():
        write_image(folders[name] / f"{scene.name}.png", method([exposures[path] for path in scene.fused]))

    stack = np.stack([metric.matlab_gray(exposures[path]) for path in scene.scored])
    pictures = {name: _same_size(picture_of(folder, scene.name), first) for name, folder in folders.items()}
    rows = [
        {"scene": scene.name, "method": name, "exposures": len(stack), "width": first[1], "height": first[0]}
        | scores(picture, stack, truth, lpips)
        for name, picture in pictures.items()
    ]
    if sheets is not None:
        labels = {path.name: exposures[path] for path in scene.fused}
        for row, picture in zip(rows, pictures.values(), strict=True):
            labels[f"{row['method']}: MEF-SSIM {row['mef_ssim']:.3f}, lum {row['mef_ssim_lum']:.3f}"] = picture
        write_image(sheets / f"{scene.name}.png", contact_sheet(labels))
    return rows


def scores(image: np.ndarray, stack: np.ndarray, reference: np.ndarray | None = None, lpips: bool = False) -> Row:
    """Returns every score of (H, W, 3) BGR uint8 against gray exposures (K, H, W) and, where given, a reference."""
    gray = metric.matlab_gray(image)
    profile = metric.mef_ssim_scales(gray, stack, len(PROFILE))
    row = {
        "mef_ssim": metric.combine_scales(profile),
        "mef_ssim_lum": metric.mef_ssim_lum(gray, stack),
        "q_abf": metric.q_abf(gray, stack),
        "viff": metric.viff(gray, stack),
        **{column.key: x for column, x in zip(PROFILE, profile.tolist(), strict=True)},
        "entropy": metric.entropy(gray),
        "average_gradient": metric.average_gradient(gray),
        "standard_deviation": metric.standard_deviation(gray),
        "spatial_frequency": metric.spatial_frequency(gray),
        "colourfulness": metric.colourfulness(image),
        "mean_luma": float(gray.mean()),
        "clipped": 100 * metric.clipped_share(gray),
    }
    if reference is not None:
        row["psnr"] = metric.psnr(image, reference)
        row["ssim"] = metric.ssim(gray, metric.matlab_gray(reference))
        if lpips:
            row["lpips"] = metric.lpips_distance(image, reference)
    return row


def fidelity_table(rows: Sequence[Row], columns: Sequence[Column] = FIDELITY) -> str:
    """Returns a Markdown table of the means a method, with MEF-SSIM's worst scene and the scenes a method wins by it.

    Methods of equal MEF-SSIM share a win. The best mean comes first.
    """
    by_method = _by_method(rows)
    best = {row["scene"]: max(r["mef_ssim"] for r in rows if r["scene"] == row["scene"]) for row in rows}
    lines = []
    for name, own in by_method.items():
        worst = min(own, key=lambda row: row["mef_ssim"])
        wins = sum(row["mef_ssim"] == best[row["scene"]] for row in own)
        first, *others = (format(_mean(own, column), column.form) for column in columns)
        lines.append([name, first, f"{worst['mef_ssim']:.4f} ({worst['scene']})", f"{wins}", *others])
    first, *others = (column.heading for column in columns)
    return _markdown(["method", first, "worst scene", "wins", *others], lines)


def mean_table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Returns a Markdown table of the means of these columns a method; empty where no scene has a value."""
    lines = [
        [name, *(format(_mean(own, column), column.form) for column in columns)]
        for name, own in _by_method(rows).items()
    ]
    return _markdown(["method", *(column.heading for column in columns)], lines)


def contact_sheet(pictures: dict[str, np.ndarray], width: int = 480) -> np.ndarray:
    """Returns one picture of labelled pictures (H, W, 3) BGR uint8, `width` pixels each, in up to four columns."""
    height = round(width * max(image.shape[0] / image.shape[1] for image in pictures.values()))
    columns = min(4, len(pictures), max(1, round(1.4 * np.sqrt(len(pictures) * height / width))))
    tiles = []
    for label, image in pictures.items():
        tile = np.full((height + 28, width + 8, 3), 32, np.uint8)
        tile[28:, 4:-4] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        size = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
        scale = 0.5 * min(1, (width - 4) / size)
        cv2.putText(tile, label, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.full_like(tiles[0], 32)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _same_size(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    image = read_8bit(path)
    if image.shape != shape:
        raise ValueError(f"{path}: expected the exposures' size {_size(shape)}, got {_size(image.shape)}")
    return image


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns each method's rows, the best mean of MEF-SSIM first."""
    names = dict.fromkeys(row["method"] for row in rows)
    own = {name: [row for row in rows if row["method"] == name] for name in names}
    return dict(sorted(own.items(), key=lambda item: -np.mean([row["mef_ssim"] for row in item[1]])))


def _mean(rows: Iterable[Row], column: Column) -> float:
    """Returns the mean over the scenes that have this score; NaN where none has."""
    values = [row[column.key] for row in rows if not np.isnan(row[column.key])]
    return float(np.mean(values)) if values else float("nan")


def _markdown(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns an aligned Markdown table, the first column to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(heading, *lines, strict=True)]
    pad = [str.ljust] + [str.rjust] * (len(heading) - 1)
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    rows = [[f(cell, width) for f, cell, width in zip(pad, line, widths, strict=True)] for line in (heading, *lines)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (rows[0], rule, *rows[1:]))
