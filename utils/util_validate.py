"""Validation: scores of what is held out, and the pictures that TensorBoard shows.

Pictures are (H, W, 3) RGB uint8. A validation returns (scores, pictures); "loss" is among the scores.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from utils import util_parallel as parallel
from utils.util_augment import narrow
from utils.util_dataset import Sample
from utils.util_fusion import Fuser
from utils.util_image import from_float, to_float
from utils.util_loss import mef_ssim_lum, mef_ssim_scales, ssim
from utils.util_metric import combine_scales
from utils.util_train import run_network

CAPTION = 24  # pixels above a picture, for what it shows
SCALES = 6  # of the profile of MEF-SSIM


@torch.no_grad()
def validate_recon(
    model: nn.Module, batches: Iterable[Sample], loss: nn.Module | None = None, shown: int = 4
) -> tuple[dict, dict]:
    """Returns the mean "loss" and "ssim" of reconstructed photographs, and a picture: above the first inputs, below
    their reconstructions. In several processes the batches are each one's share."""
    model.eval()
    device = next(model.parameters()).device
    rows, rgb = [], []
    for batch in batches:
        y = batch.exposures[:, 0].to(device)
        y_hat = run_network(model, y[:, None].expand(-1, 2, -1, -1, -1), 1, amp=False)
        rows += ssim(y_hat, y).tolist()
        rgb += [[to_rgb(one) for one in pair] for pair in zip(y.cpu().numpy(), y_hat.cpu().numpy(), strict=True)]
        rgb = rgb[:shown]
    mean = float(np.mean(parallel.gathered(rows)))
    pictures = {}
    if rgb:
        above, below = (np.hstack(row) for row in zip(*rgb, strict=True))
        pictures["reconstruction"] = np.vstack([captioned(above, "photographs"), captioned(below, "reconstructed")])
    return {"loss": 1 - mean, "ssim": mean}, pictures


@torch.no_grad()
def validate_pairs(model: nn.Module, pairs: Iterable, loss: nn.Module, shown: int = 4) -> tuple[dict, dict]:
    """Returns the scores of whole pairs, fused as `Fuser` does it, and pictures of the first: under, over, fused.

    In several processes the pairs are each one's share, and the scores those of all.

    Args:
        pairs: of (name, pair, judges), lists of luminance (H, W) uint8.

    Returns:
        Means over the pairs: "loss" (`MEFLoss`) and, of the picture in 8 bits, "mef_ssim", "mef_ssim_lum" and
        "mef_ssim_coarse" (scales 4 to 6 of the profile, where halos and veils show); "mef_ssim_worst". And the
        pictures by name.

    Raises:
        ValueError: no pairs, or what the pairs raise when they are read.
    """
    device = next(model.parameters()).device
    fuser = Fuser(model, str(device))
    rows: list[tuple[float, ...]] = []
    pictures: dict[str, np.ndarray] = {}
    for name, pair, judges in pairs:
        gray = fuser.fuse(pair)
        fused, stack = (torch.from_numpy(to_float(y))[None].to(device) for y in (gray[None], np.stack(judges)))
        profile = mef_ssim_scales(fused, stack, SCALES)[0].cpu().numpy()  # small pictures have fewer scales
        score = combine_scales(profile)
        rows.append((loss(fused, stack).item(), score, mef_ssim_lum(fused, stack).item(), profile[-3:].mean()))
        if len(pictures) < shown:
            pictures[f"validation/{name}"] = side_by_side({"under": pair[0], "over": pair[1], "fused": gray})
    rows = parallel.gathered(rows)
    if not rows:
        raise ValueError("no pair to validate on could be used: add pictures, or set --val_fraction 0")
    mean = np.mean(rows, 0).tolist()
    return {
        "loss": mean[0],
        "mef_ssim": mean[1],
        "mef_ssim_worst": float(np.min(rows, 0)[1]),
        "mef_ssim_lum": mean[2],
        "mef_ssim_coarse": mean[3],
    }, pictures


def to_rgb(y: np.ndarray) -> np.ndarray:
    """Returns luminance (1, H, W) or RGB (3, H, W), float about [0, 1], as (H, W, 3) RGB uint8, clamped and rounded."""
    picture = np.moveaxis(from_float(y, np.uint8), 0, -1)
    return np.ascontiguousarray(np.broadcast_to(picture, (*y.shape[1:], 3)))


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """Returns a picture (H, W, 3) uint8 under a black bar of CAPTION pixels that says what it is."""
    bar = np.zeros((CAPTION, picture.shape[1], 3), np.uint8)
    cv2.putText(bar, text, (4, CAPTION - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([bar, picture])


def side_by_side(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Returns pictures of one size in a row, (H, W) or (H, W, 3) RGB uint8, with their names above.

    Panoramas, more than twice as wide as high, come one below the other: TensorBoard shrinks rows to a card's width.
    """
    rgb = {name: picture if picture.ndim == 3 else np.stack([picture] * 3, 2) for name, picture in pictures.items()}
    height, width = next(iter(rgb.values())).shape[:2]
    join = np.vstack if width > 2 * height else np.hstack
    return join([captioned(picture, name) for name, picture in rgb.items()])


def fused_sample(model: nn.Module, images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns an under-, an over-exposed shot and their fusion in a row, as the user gets it from `Fuser`.

    Args:
        images: two (H, W, 3) BGR uint8; wider ones are shrunk, see `narrow`.
    """
    under, over = map(narrow, images)
    fused = Fuser(model, str(next(model.parameters()).device)).fuse([under, over])
    return side_by_side({"under": under[..., ::-1], "over": over[..., ::-1], "fused": fused[..., ::-1]})


def log_settings(writer: SummaryWriter, settings: dict, scores: Sequence[str]) -> None:
    """Writes the settings to TensorBoard's HParams tab, beside the scores of these names that are logged later."""
    # The tab shows True as 1.0000, if it is not text.
    values = {name: value if type(value) in (int, float) else str(value) for name, value in settings.items()}
    for summary in hparams(values, dict.fromkeys(scores, 0)):
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined] # typed as None


def log(
    writer: SummaryWriter, step: int, scores: dict[str, float], pictures: dict[str, np.ndarray] | None = None
) -> None:
    """Writes scores and pictures, by their names, after so many steps of the run."""
    for name, value in scores.items():
        writer.add_scalar(name, value, step)
    for name, picture in (pictures or {}).items():
        writer.add_image(name, picture, step, dataformats="HWC")
    writer.flush()
