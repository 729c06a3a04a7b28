"""Training: the objectives, one epoch, validation, checkpoints, and what TensorBoard is shown."""

import copy
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from models import DeepFusePyramid, read_checkpoint
from utils.util_dataset import Sample
from utils.util_fusion import Fuser
from utils.util_image import from_float, to_float
from utils.util_loss import WINDOW, ssim
from utils.util_metric import combine_scales, mef_ssim_lum, mef_ssim_scales
from utils.utils import replacing

Criterion = Callable[..., torch.Tensor]  # model, samples (N, K, C, H, W), amp -> losses (N,)

WARM_UP = 0.02  # share of a cosine run in which the learning rate rises
SHOWN_WIDTH = 512  # pixels of a picture in TensorBoard, at most


# Objectives


def run_network(model: nn.Module, exposures: torch.Tensor, factor: int, amp: bool) -> torch.Tensor:
    """Returns the network's picture in float32; with `amp` it computes in bfloat16, and the losses still do not."""
    with torch.autocast(exposures.device.type, torch.bfloat16, enabled=amp):
        fused = model.fuse(exposures, factor) if isinstance(model, DeepFusePyramid) else model(exposures)
        return fused.float()


def recon_losses(model: nn.Module, sample: Sample, loss: nn.Module, amp: bool = False) -> torch.Tensor:
    """Returns 1 - SSIM (N,) of photographs (N, 1, C, H, W) in [0, 1], fused with themselves.

    As a pair with itself a photograph has the features' amplitude of a pair. Both pictures are mirrored outwards, so
    that the windows of SSIM weigh the pixels at the border like all others.
    """
    y = sample.exposures
    y_hat = run_network(model, y.expand(-1, 2, -1, -1, -1), 1, amp)
    return 1 - ssim(*(F.pad(picture, [WINDOW // 2] * 4, mode="reflect") for picture in (y_hat, y[:, 0])))


def fusion_losses(model: nn.Module, sample: Sample, loss: nn.Module, amp: bool = False) -> torch.Tensor:
    """Returns the `MEFLoss` (N,) of the pictures fused from a batch's exposures, against its judges."""
    exposures, judges, factor = sample
    return loss(run_network(model, exposures, int(factor[0]), amp), judges[:, :, 0])


OBJECTIVES: dict[str, Criterion] = {"recon": recon_losses, "mef": fusion_losses, "exposure": fusion_losses}


def learning_rate(base: float, schedule: str, epochs_done: float, num_epochs: int) -> float:
    """Returns the learning rate after `epochs_done` (fractions count) of `num_epochs`.

    Args:
        schedule: "exponential" multiplies by 0.9 after each epoch; "cosine" rises linearly for WARM_UP of the run and
            falls to zero along half a cosine.
    """
    if schedule == "exponential":
        return base * 0.9 ** int(epochs_done)
    if schedule == "cosine":
        share = epochs_done / num_epochs
        if share < WARM_UP:
            return base * share / WARM_UP
        return base * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2
    raise ValueError(f"no schedule is called {schedule!r}: expected exponential or cosine")


# State: what is trained, saved and restored


@dataclass
class Training:
    """A training run between two epochs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None = None  # exponential moving average of the model's weights, where one is kept
    ema: float = 0.0  # its decay a step
    epoch: int = 0  # last finished
    step: int = 0  # last finished
    best_loss: float = math.inf

    @property
    def best_model(self) -> nn.Module:
        """The network to validate and to ship: the average where one is kept."""
        return self.model if self.average is None else self.average


def new_training(model: nn.Module, lr: float, ema: float = 0.0) -> Training:
    """Returns a run at its start, with Adam. `ema` is the decay a step of the average of weights; 0 keeps none.

    The model is put into the channels-last layout, in which convolutions of few channels are several times faster.
    """
    model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False) if ema else None
    return Training(model, torch.optim.Adam(model.parameters(), lr, betas=(0.9, 0.99)), average, ema)


def save_checkpoint(path: Path, training: Training, loss: float) -> None:
    """Writes all that `resume_training` needs; the file appears whole or not at all."""
    content = weights_of(training.best_model) | {
        "epoch": training.epoch,
        "step": training.step,
        "loss": loss,
        "best_loss": training.best_loss,
        "optimizer": training.optimizer.state_dict(),
        "rng": random_state(),
    }
    if training.average is not None:
        content["raw"] = training.model.state_dict()  # "model" is the average
    with replacing(path) as temporary:
        torch.save(content, temporary)


def save_validated(folder: Path, training: Training, loss: float, settings: dict) -> bool:
    """Writes last.pth and, where the validation loss is the best so far, the epoch's checkpoint and best.pth to ship.

    Returns:
        Whether it is the best so far; `training.best_loss` then is this loss.
    """
    improved = loss < training.best_loss
    training.best_loss = min(loss, training.best_loss)
    save_checkpoint(folder / "last.pth", training, loss)
    if improved:
        save_checkpoint(folder / f"epoch{training.epoch:03}-loss{loss:.3f}.pth", training, loss)
        save_weights(folder / "best.pth", training, settings)
    return improved


def resume_training(path: Path, training: Training) -> None:
    """Restores what `save_checkpoint` wrote into a run at its start, of the same network.

    Raises:
        FileNotFoundError, ValueError: as `models.read_checkpoint`; or the file holds weights without a run's state.
    """
    content = read_checkpoint(path)
    if missing := {"model", "epoch", "step", "best_loss", "optimizer", "rng"} - content.keys():
        raise ValueError(f"{path} holds no run to resume (no {', '.join(sorted(missing))}): start from it by --weights")
    try:
        training.model.load_state_dict(content.get("raw", content["model"]))
        if training.average is not None:
            training.average.load_state_dict(content["model"])
        training.optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is of another network: {' '.join(str(error).split())[:200]}") from error
    training.epoch, training.step = content["epoch"], content["step"]
    training.best_loss = content["best_loss"]
    set_random_state(content["rng"])


def save_weights(path: Path, training: Training, settings: dict) -> None:
    """Writes the checkpoint to ship: the network's name, architecture and weights, and how they were made."""
    provenance = {"epoch": training.epoch, "loss": training.best_loss}
    provenance |= {name: settings[name] for name in ("objective", "seed", "git", "torch")}
    with replacing(path) as temporary:
        torch.save(weights_of(training.best_model) | {"provenance": provenance}, temporary)


def weights_of(model: nn.Module) -> dict:
    """Returns what rebuilds a network: its name, architecture and weights."""
    return {"name": model.name, "arch": asdict(model.arch), "model": model.state_dict()}


def random_state() -> dict:
    """Returns the state of all random generators, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict) -> None:
    """Restores what `random_state` returned; the devices' only where there are as many of them."""
    kind, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


# One epoch


def train_one_epoch(
    training: Training,
    batches: Iterable,
    criterion: Criterion,
    lr_at: Callable[[float], float],
    clip_grad: float = 0.0,
    report: Callable[[dict], None] = lambda values: None,
) -> dict[str, float]:
    """Trains on the batches; `training.epoch` is one more afterwards.

    Args:
        batches: a sized iterable of exposures (N, K, C, H, W) in [0, 1].
        lr_at: the learning rate after so many epochs, fractions included.
        clip_grad: largest norm of the gradient; 0 leaves it alone.
        report: is called after each step with the learning rate and the epoch's mean loss so far.

    Returns:
        "loss", the mean over the samples; "learning_rate", the last one; "images_per_second".

    Raises:
        FloatingPointError: a loss is not finite (the model is as it was before that step), or the weights are not.
    """
    model, optimizer = training.model.train(), training.optimizer
    device = next(model.parameters()).device
    total, count, start = 0.0, 0, time.perf_counter()
    for number, batch in enumerate(batches):
        lr = lr_at(training.epoch + (number + 0.5) / len(batches))
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = criterion(model, Sample(*(x.to(device, non_blocking=True) for x in batch))).mean()
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} in epoch {training.epoch + 1}, step {number + 1}, at learning rate {lr:.2g}: "
                "lower --lr, or set --clip_grad"
            )
        optimizer.zero_grad()
        loss.backward()
        if clip_grad:
            nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
        optimizer.step()
        training.step += 1
        if training.average is not None:
            update_average(training.average, model, min(training.ema, (1 + training.step) / (10 + training.step)))
        total, count = total + value * len(batch[0]), count + len(batch[0])
        report({"learning_rate": f"{lr:.2e}", "loss": f"{total / count:.4f}"})
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise FloatingPointError(
            f"weights are not finite after epoch {training.epoch + 1}: lower --lr, or set --clip_grad"
        )
    training.epoch += 1
    return {
        "loss": total / count,
        "learning_rate": lr,
        "images_per_second": count / (time.perf_counter() - start),
    }


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the average's weights and buffers towards the model's: average = decay * average + (1 - decay) * model."""
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


# Validation: (scores, pictures); "loss" is among the scores, pictures are (H, W, 3) RGB uint8


@torch.no_grad()
def validate_recon(model: nn.Module, batches: Iterable, shown: int = 4) -> tuple[dict, dict]:
    """Returns the mean "loss" and "ssim" of reconstructed photographs, and a picture: above the first inputs, below
    their reconstructions."""
    model.eval()
    device = next(model.parameters()).device
    scores, picture = [], None
    for batch in batches:
        y = batch[0][:, 0].to(device)
        y_hat = run_network(model, y[:, None].expand(-1, 2, -1, -1, -1), 1, amp=False)
        scores += ssim(y_hat, y).tolist()
        if picture is None:
            picture = np.vstack([np.hstack([to_rgb(one) for one in row[:shown].cpu().numpy()]) for row in (y, y_hat)])
    mean = float(np.mean(scores))
    return {"loss": 1 - mean, "ssim": mean}, {"reconstruction": picture}


@torch.no_grad()
def validate_pairs(model: nn.Module, pairs: Iterable, loss: nn.Module, shown: int = 4) -> tuple[dict, dict]:
    """Returns the scores of whole pairs at native size, and pictures of the first: under, over, fused.

    Args:
        pairs: of (name, pair, judges), lists of luminance (H, W) uint8.

    Returns:
        Means over the pairs: "loss" (`MEFLoss`) and, of the picture in 8 bits, "mef_ssim", "mef_ssim_lum" and
        "mef_ssim_coarse" (scales 4 to 6 of the profile, where halos and veils show); "mef_ssim_worst". And the
        pictures by name.

    Raises:
        ValueError: no pairs, or what the pairs raise when they are read.
    """
    fuser = Fuser(model, next(model.parameters()).device)
    losses, scores, pictures = [], [], {}
    for name, pair, judges in pairs:
        gray, stack = fuser.fuse(pair), np.stack(judges)
        losses.append(loss(*(torch.from_numpy(to_float(y))[None] for y in (gray[None], stack))).item())
        profile = mef_ssim_scales(gray, stack)
        profile = profile[np.isfinite(profile)]  # small pictures have fewer scales
        scores.append((combine_scales(profile), mef_ssim_lum(gray, stack), profile[-3:].mean()))
        if len(pictures) < shown:
            pictures[f"validation/{name}"] = strip([to_rgb(to_float(y)[None]) for y in (*pair, gray)])
    if not scores:
        raise ValueError("no pair to validate on could be used: add pictures, or set --val_fraction 0")
    mean = np.mean(scores, 0).tolist()
    return {
        "loss": float(np.mean(losses)),
        "mef_ssim": mean[0],
        "mef_ssim_worst": float(np.min(scores, 0)[0]),
        "mef_ssim_lum": mean[1],
        "mef_ssim_coarse": mean[2],
    }, pictures


# TensorBoard


def to_rgb(y: np.ndarray) -> np.ndarray:
    """Returns luminance (1, H, W) or RGB (3, H, W), float about [0, 1], as (H, W, 3) RGB uint8, clamped and rounded."""
    picture = np.moveaxis(from_float(y, np.uint8), 0, -1)
    return np.ascontiguousarray(np.broadcast_to(picture, (*y.shape[1:], 3)))


def strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures (H, W, 3) uint8 of one size side by side, each at most SHOWN_WIDTH wide."""
    height, width = pictures[0].shape[:2]
    scale = min(1, SHOWN_WIDTH / width)
    size = (round(width * scale), round(height * scale))
    return np.hstack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures])


def fused_sample(model: nn.Module, images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns exposures and their fusion side by side, (H, W, 3) RGB uint8, as the user gets it from `Fuser`.

    Args:
        images: (H, W, 3) BGR uint8.
    """
    fused = Fuser(model, next(model.parameters()).device).fuse(images)
    return strip([*images, fused])[..., ::-1]


def log_epoch(writer: SummaryWriter, epoch: int, scores: dict[str, dict], pictures: dict[str, np.ndarray]) -> None:
    """Writes an epoch's scores, by group ("train", "validation"), and pictures (H, W, 3) RGB uint8."""
    for group, values in scores.items():
        for name, value in values.items():
            writer.add_scalar(f"{group}/{name}", value, epoch)
    for name, picture in pictures.items():
        writer.add_image(name, picture, epoch, dataformats="HWC")
    writer.flush()
