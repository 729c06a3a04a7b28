"""Validation: scores of held-out photographs and pairs, and pictures for TensorBoard.

Pictures are (H, W, 3) RGB uint8. A validation returns (scores, pictures); "loss" is among the scores.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from models import Network
from utils.errors import UserError
from utils.evaluation.metric import combine_scales
from utils.fusing.fusion import Fuser
from utils.fusing.tiles import on_device
from utils.pictures.pixels import captioned, eight_bits, luma, to_float
from utils.training import parallel
from utils.training.augment import narrow
from utils.training.dataset import Sample
from utils.training.loss import mef_ssim_lum, mef_ssim_scales, ssim

SCALES = 6  # of MEF-SSIM, from full size to 1/32


@torch.no_grad()
def validate_recon(
    model: Network, batches: Iterable[Sample], loss: nn.Module | None = None, shown: int = 4
) -> tuple[dict, dict]:
    """Returns the mean "loss" and "ssim" of reconstructed photographs, and a picture of the first `shown`.

    The picture shows the photographs above their reconstructions. With several processes, `batches` are this one's
    share.
    """
    model.eval()
    device = next(model.parameters()).device
    rows, rgb = [], []
    for group in batches:  # squares of one size: a batch is one group
        exposures = group.exposures.to(device)
        y, y_hat = exposures[:, 0], model.fuse(exposures)
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
def validate_pairs(model: Network, pairs: Iterable, loss: nn.Module, shown: int = 4) -> tuple[dict, dict]:
    """Returns the scores of whole pairs, fused as `Fuser` does it, and pictures of the first: under, over, fused.

    With several processes, `pairs` are this one's share, and the scores are those of all.

    Args:
        pairs: of (name, pair, judges): a list of shots, (H, W) or (H, W, 3) BGR, and one of luminances (H, W), uint8.

    Returns:
        Scores of the pictures in 8 bits: the means "loss" (`MEFLoss`), "mef_ssim", "mef_ssim_lum" and "mef_ssim_coarse"
        (scales 4 to 6, where halos and veils show), and the lowest MEF-SSIM, "mef_ssim_worst". And pictures by name.

    Raises:
        ValueError: there is no pair, or reading one failed.
    """
    device = next(model.parameters()).device
    fuser = Fuser(on_device(model, device))
    rows: list[tuple[float, ...]] = []
    pictures: dict[str, np.ndarray] = {}
    for name, pair, judges in pairs:
        picture = fuser.fuse(pair)
        gray = eight_bits(luma(picture))
        fused, stack = (torch.from_numpy(to_float(y))[None].to(device) for y in (gray[None], np.stack(judges)))
        profile = mef_ssim_scales(fused, stack, SCALES)[0].cpu().numpy()  # small pictures have fewer scales
        score = combine_scales(profile)
        rows.append((loss(fused, stack).item(), score, mef_ssim_lum(fused, stack).item(), profile[-3:].mean()))
        if len(pictures) < shown:
            pictures[f"validation/{name}"] = side_by_side({"under": pair[0], "over": pair[1], "fused": picture})
    rows = parallel.gathered(rows)
    if not rows:
        raise UserError("no pair to validate on could be used: add pictures, or set --val_fraction 0")
    mean = np.mean(rows, 0).tolist()
    return {
        "loss": mean[0],
        "mef_ssim": mean[1],
        "mef_ssim_worst": float(np.min(rows, 0)[1]),
        "mef_ssim_lum": mean[2],
        "mef_ssim_coarse": mean[3],
    }, pictures


def to_rgb(y: np.ndarray) -> np.ndarray:
    """Returns luminance (1, H, W) or RGB (3, H, W), float, as (H, W, 3) RGB uint8, clamped to [0, 1] and rounded."""
    picture = np.moveaxis(eight_bits(y), 0, -1)
    return np.ascontiguousarray(np.broadcast_to(picture, (*y.shape[1:], 3)))


def side_by_side(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Returns one picture of pictures of one size, (H, W) or (H, W, 3) RGB uint8, in a row with their names above.

    Panoramas, more than twice as wide as high, are stacked instead, since TensorBoard shrinks wide pictures.
    """
    rgb = {
        name: picture[..., ::-1] if picture.ndim == 3 else np.stack([picture] * 3, 2)
        for name, picture in pictures.items()
    }
    height, width = next(iter(rgb.values())).shape[:2]
    join = np.vstack if width > 2 * height else np.hstack
    return join([captioned(picture, name) for name, picture in rgb.items()])


def fused_sample(model: Network, images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns one picture of a pair and its fusion by `Fuser`, side by side.

    Args:
        images: two (H, W, 3) BGR uint8; wider ones are shrunk, see `narrow`.
    """
    under, over = map(narrow, images)
    fused = Fuser(on_device(model, next(model.parameters()).device)).fuse([under, over])
    return side_by_side({"under": under, "over": over, "fused": fused})


def log_settings(writer: SummaryWriter, settings: dict, scores: Sequence[str]) -> None:
    """Writes the settings to TensorBoard's HParams tab, which shows them with these scores, logged later."""
    # Other types become text: the tab would show True as 1.0000.
    values = {name: value if type(value) in (int, float) else str(value) for name, value in settings.items()}
    for summary in hparams(values, dict.fromkeys(scores, 0)):
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined] # typed as None


def log(
    writer: SummaryWriter, step: int, scores: dict[str, float], pictures: dict[str, np.ndarray] | None = None
) -> None:
    """Writes scores and pictures by name to TensorBoard, at this step of the run."""
    for name, value in scores.items():
        writer.add_scalar(name, value, step)
    for name, picture in (pictures or {}).items():
        writer.add_image(name, picture, step, dataformats="HWC")
    writer.flush()
