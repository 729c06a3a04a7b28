"""Fuse scenes with several methods and score the saved pictures: the parts of run_eval.py."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError
from utils.evaluation import metric
from utils.evaluation.report import PROFILE, Row, contact_sheet
from utils.files import write_json
from utils.fusing.fusion import Fuser
from utils.pictures.image import IMAGE_SUFFIXES, list_images, read_image, write_image
from utils.pictures.pixels import eight_bits, shrink, size_of
from utils.pictures.scenes import Scene, read_pairs

Method = Callable[[Sequence[np.ndarray]], np.ndarray]  # exposures (H, W, 3) BGR uint8 -> picture of the same form
RESULTS = ("results.csv", "results.md", "results.tex")  # what an evaluation writes, beside pictures/ and sheets/
MARK = "evaluation.json"  # settings of an evaluation; only a folder that holds this file may be emptied


def find_eval_scenes(
    folder: str | os.PathLike, pairs: str | os.PathLike | None = None, full_stack: bool = True
) -> list[Scene]:
    """Returns the scenes of a folder, sorted by name, or those of a table of pairs in it.

    Args:
        folder: Holds one folder of shots per scene.
        pairs: CSV table with the columns scene, under and over: the scenes, and the two shots of each to fuse.
        full_stack: Score such a pair against every shot in the scene's folder, otherwise against the two alone.

    Raises:
        FileNotFoundError: There is no such folder or table.
        ValueError: The folder has no scene, or the table lacks a column.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of scenes")
    if pairs is None:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not names:
            raise UserError(f"{folder}: expected one folder of shots per scene, found no folder in it")
        stacks = [tuple(list_images(folder / name)) for name in names]
        return [Scene(name, stack, stack) for name, stack in zip(names, stacks, strict=True)]
    scenes = read_pairs(folder, pairs)
    return scenes if full_stack else [Scene(scene.name, scene.paths, scene.paths) for scene in scenes]


def average(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the plain average of exposures (H, W, 3) uint8, halves rounded up."""
    return np.floor(np.mean(images, axis=0) + 0.5).astype(np.uint8)


def mertens(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns OpenCV's MergeMertens (default weights) of exposures (H, W, 3) uint8, clipped to 0..255 and rounded."""
    return eight_bits(cv2.createMergeMertens().process(list(images)))


def enfuse(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the picture fused by the program enfuse (default settings) from exposures (H, W, 3) BGR uint8."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.png" for i in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            write_image(path, image)
        out = Path(folder) / "fused.png"
        done = subprocess.run(["enfuse", "-o", out, *paths], capture_output=True, text=True)
        if done.returncode or not out.is_file():
            raise UserError(f"enfuse failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return read_image(out)


def enfuse_version() -> str | None:
    """Returns enfuse's version line, or None where it is not installed."""
    if shutil.which("enfuse") is None:
        return None
    return subprocess.run(["enfuse", "--version"], capture_output=True, text=True).stdout.splitlines()[0]


@functools.cache
def load_fuser(weights: str, device: str) -> Fuser:
    """Returns the Fuser of a checkpoint, loaded once per process."""
    return Fuser.from_checkpoint(weights, device)


def fuse_with_weights(images: Sequence[np.ndarray], weights: str, device: str) -> np.ndarray:
    """Returns the picture fused by a checkpoint's network from exposures (H, W, 3) BGR uint8."""
    return load_fuser(weights, device).fuse(images)


BASELINES: dict[str, Method] = {"average": average, "mertens": mertens, "enfuse": enfuse}


def clear_output(output: Path, settings: dict, inputs: Sequence[str | os.PathLike]) -> None:
    """Makes the folder `output`, removes an earlier evaluation's results from it, and stores the settings in it.

    Args:
        output: A new folder, one without "pictures" and "sheets", or an earlier evaluation's (which holds MARK).
        settings: Stored in MARK.
        inputs: Folders that the evaluation reads; none may lie in `output` or contain it.

    Raises:
        ValueError: An input and `output` lie in each other, or `output` has pictures but no MARK.
    """
    for folder in inputs:
        inner, outer = Path(folder).resolve(), output.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise UserError(f"--output {output} and the input {folder} lie in each other: choose another --output")
    made = [output / "pictures", output / "sheets"]
    if any(folder.exists() for folder in made) and not (output / MARK).is_file():
        raise UserError(f"{output} holds pictures/ or sheets/ but no {MARK}: remove them, or choose another --output")
    write_json(output / MARK, settings)
    for folder in made:
        if folder.exists():
            shutil.rmtree(folder)
    for table in RESULTS:
        (output / table).unlink(missing_ok=True)


def read_8bit(path: str | os.PathLike, max_width: int | None = None) -> np.ndarray:
    """Returns a picture (H, W, 3) BGR uint8, shrunk by area to at most `max_width`, then rounded to 8 bits."""
    return eight_bits(shrink(read_image(path), width=max_width or np.inf))


def picture_of(folder: Path, scene: str) -> Path:
    """Returns folder/<scene>.png, or, if there is none, the picture of this name with another suffix."""
    named = [folder / f"{scene}{suffix}" for suffix in (".png", *IMAGE_SUFFIXES)]
    return next((path for path in named if path.is_file()), named[0])


def score_scene(
    scene: Scene,
    methods: dict[str, Method],
    folders: dict[str, Path],
    reference: Path | None = None,
    lpips: bool = False,
    iqa: Sequence[str] = (),
    sheets: Path | None = None,
    max_width: int | None = None,
) -> list[Row]:
    """Returns a row of scores per method: fuses the scene, saves the pictures, reads them back and scores them.

    Args:
        scene: Its `paths` are fused; its `stack` is what the pictures are scored against.
        methods: Methods to run; their pictures are saved as folders[name]/<scene>.png.
        folders: Folder of pictures of every method to score: those of `methods`, and those of other programs.
        reference: Folder of ground truth <scene>.png, or None.
        lpips: Whether to compute LPIPS too, where there is a reference.
        iqa: Names of measures without a reference, as for `metric.load_iqa`.
        sheets: Folder for the contact sheet <scene>.png, or None.
        max_width: Shots and pictures wider than this are shrunk when they are read (`read_8bit`).

    Raises:
        ValueError, OSError: A picture of this scene is missing, cannot be read, or has another size.
    """
    if len(scene.paths) < 2:
        raise UserError(f"expected two or more exposures, found {len(scene.paths)}")
    first = read_8bit(scene.stack[0], max_width)
    shots = {scene.stack[0]: first} | {path: _same_size(path, first, max_width) for path in scene.stack[1:]}
    truth = None if reference is None else _same_size(picture_of(reference, scene.name), first, max_width)
    fused = [shots[path] for path in scene.paths]
    unseen = [image for path, image in shots.items() if path not in scene.paths]
    for name, method in methods.items():
        write_image(folders[name] / f"{scene.name}.png", method(fused))

    pictures = {name: _same_size(picture_of(folder, scene.name), first, max_width) for name, folder in folders.items()}
    rows = [
        {"scene": scene.name, "method": name, "fused": len(fused), "exposures": len(shots)}
        | {"width": first.shape[1], "height": first.shape[0]}
        | scores(picture, fused, unseen)
        | {measure: metric.load_iqa(measure)[0](picture) for measure in iqa}
        | ({} if truth is None else reference_scores(picture, truth, lpips))
        for name, picture in pictures.items()
    ]
    if sheets is not None:
        labels = {path.name: shots[path] for path in scene.paths}
        for row, picture in zip(rows, pictures.values(), strict=True):
            labels[f"{row['method']}: MEF-SSIM {row['mef_ssim']:.3f}, lum {row['mef_ssim_lum']:.3f}"] = picture
        write_image(sheets / f"{scene.name}.png", contact_sheet(labels))
    return rows


def scores(image: np.ndarray, fused: Sequence[np.ndarray], unseen: Sequence[np.ndarray] = ()) -> Row:
    """Returns every score of a fused picture that needs only the scene's shots.

    They compare with all shots, with two exceptions: "mef_ssim_fused" compares with `fused` alone, and the three colour
    scores with `unseen` alone, if there are any.

    Args:
        image: The fused picture, (H, W, 3) BGR uint8.
        fused: The shots that it was fused from, of the same form.
        unseen: The scene's other shots.
    """
    gray = metric.matlab_gray(image)
    stack = np.stack([metric.matlab_gray(shot) for shot in (*fused, *unseen)])
    profile = metric.mef_ssim_scales(gray, stack, len(PROFILE))
    score = metric.combine_scales(profile)
    difference, hue, saturation = metric.colour_errors(image, unseen or fused)
    return {
        "mef_ssim": score,
        "mef_ssim_fused": metric.mef_ssim(gray, stack[: len(fused)]) if unseen else score,
        "mef_ssim_lum": metric.mef_ssim_lum(gray, stack),
        "q_abf": metric.q_abf(gray, stack),
        "viff": metric.viff(gray, stack),
        "colour_difference": difference,
        "hue_error": hue,
        "saturation": saturation,
        **{column.key: x for column, x in zip(PROFILE, profile.tolist(), strict=True)},
        "entropy": metric.entropy(gray),
        "average_gradient": metric.average_gradient(gray),
        "standard_deviation": metric.standard_deviation(gray),
        "spatial_frequency": metric.spatial_frequency(gray),
        "colourfulness": metric.colourfulness(image),
        "mean_luma": float(gray.mean()),
        "clipped": 100 * metric.clipped_share(gray),
    }


def reference_scores(image: np.ndarray, reference: np.ndarray, lpips: bool = False) -> Row:
    """Returns PSNR and SSIM, and with `lpips` LPIPS and the NTIRE score, against a reference; both BGR uint8."""
    psnr = metric.psnr(image, reference)
    ssim = metric.ssim(metric.matlab_gray(image), metric.matlab_gray(reference))
    row = {"psnr": psnr, "ssim": ssim}
    if lpips:
        distance = metric.load_lpips()(image, reference)
        row |= {"lpips": distance, "ntire": metric.ntire_score(psnr, ssim, distance)}
    return row


def _same_size(path: Path, shot: np.ndarray, max_width: int | None) -> np.ndarray:
    image = read_8bit(path, max_width)
    if image.shape != shot.shape:
        raise UserError(f"{path}: expected the exposures' size {size_of(shot)}, got {size_of(image)}")
    return image
