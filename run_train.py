"""Trains DeepFuse: python run_train.py --image_path FOLDER [--objective recon|mef|exposure]."""

import argparse
import functools
import os
import time
from pathlib import Path

from configs import get_infer_args, get_train_args
from utils.utils import duration, exit_on_error, git_sha, make_run_folder, settings_block, write_json

if __name__ == "__main__":  # before PyTorch is imported, which takes seconds
    with exit_on_error():
        ARGS = get_train_args()

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models import fuse_model
from utils import util_dataset as data
from utils import util_train as train
from utils.util_device import device_on, seed_everything
from utils.util_image import read_image
from utils.util_loss import MEFLoss


def main(args: argparse.Namespace) -> None:
    say = print if args.output else lambda *_: None
    start = time.perf_counter()
    seed_everything(args.seed)
    device = device_on(args.device)
    model = network(args).to(device)
    loss = MEFLoss(args.scale_weights, args.lum_weight)
    batches, validate = datasets(args, model, device, loss)
    batches.dataset[next(iter(batches.sampler))]  # what is wrong with the pictures comes to light here
    training = train.new_training(model, args.lr, args.ema)
    if args.resume_path:
        train.resume_training(args.resume_path, training)
    first = training.epoch + 1
    if first > args.num_epochs:
        raise ValueError(f"{args.resume_path} has finished epoch {training.epoch}: expected a larger --num_epochs")

    folder = run_folder(args)
    settings = vars(args) | {"model": model.name, "device": str(device)}
    settings |= {"git": git_sha(), "torch": str(torch.__version__)}
    write_json(folder / "settings.json", settings)
    say(settings_block(settings))
    say(f"{len(batches.sampler)} samples an epoch; run folder {folder}")
    say(f"TensorBoard: tensorboard --logdir {args.runs_path}")
    writer = SummaryWriter(folder / "logs", purge_step=first)
    writer.add_text("settings", "\n".join(f"    {line}" for line in settings_block(settings).splitlines()))
    sample = sample_pair()
    criterion = functools.partial(train.OBJECTIVES[args.objective], loss=loss, amp=args.amp)
    lr_at = functools.partial(train.learning_rate, args.lr, args.lr_schedule, num_epochs=args.num_epochs)
    last = folder / "checkpoints" / "last.pth"
    try:
        for epoch in range(first, args.num_epochs + 1):
            batches.sampler.epoch = epoch
            bar = tqdm(batches, f"Epoch [{epoch}/{args.num_epochs}]", disable=not args.output)
            trained = train.train_one_epoch(training, bar, criterion, lr_at, args.clip_grad, bar.set_postfix)
            train.log_epoch(writer, epoch, {"train": trained}, {})
            train.save_checkpoint(last, training, trained["loss"])
            if epoch % args.val_every and epoch < args.num_epochs:
                continue

            scores, pictures = validate(training.best_model)
            if sample:
                pictures["sample pair"] = train.fused_sample(training.best_model, sample)
            train.log_epoch(writer, epoch, {"validation": scores}, pictures)
            score = scores.get("loss", trained["loss"])
            improved = train.save_validated(last.parent, training, score, settings)
            shown = ", ".join(f"{name} {score:.4f}" for name, score in scores.items()) or "nothing is held out"
            say(f"validation: {shown}" + " (best)" * improved)
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError("the GPU has too little memory: reduce --batch_size or --crop_size") from error
    except KeyboardInterrupt:
        if last.exists():
            say(f"\nGo on with: python run_train.py --resume_path {last}")
        raise
    writer.close()
    say(f"Finished Training in {duration(time.perf_counter() - start)}, best loss {training.best_loss:.4f}: {folder}")


def network(args: argparse.Namespace) -> torch.nn.Module:
    """Returns the network to train, from the checkpoint to resume, from weights, or new."""
    name = None if args.model == "auto" else args.model
    if not (name or args.resume_path or args.weights):
        name = "DeepFuse" if args.objective == "recon" else "DeepFuse_pyramid"
    channels = 1 if args.gray else 3
    if args.objective != "recon" and not args.gray:
        raise ValueError(f"objective {args.objective} trains luminance networks: use --gray, or --objective recon")
    return fuse_model(name, args.resume_path or args.weights, channels)


def datasets(args: argparse.Namespace, model: torch.nn.Module, device: torch.device, loss: torch.nn.Module) -> tuple:
    """Returns the training batches, and a function from a network to its validation scores and pictures."""
    progress = functools.partial(tqdm, desc="Scanning", disable=not args.output)
    if args.objective == "mef":
        scenes = data.read_brackets(args.image_path, args.cache_mb, progress)
        if args.val_path:
            pairs = validation_pairs(args, progress)
        else:
            scenes, held_out = data.hold_out(scenes, validation_count(args, len(scenes)), args.seed)
            pairs = data.pairs_of(held_out)
        simulated = None
        if args.photo_path:
            photographs = data.find_photographs(args.photo_path, progress)
            simulated = data.Photographs(photographs, args.crop_size, simulate=True, hidden=args.hidden)
            simulated[(0, args.seed, args.seed)]  # unusable ones come to light here: the first sample may be a bracket
        samples = data.BracketStacks(scenes, args.crop_size, simulated, args.hidden)
        validate = (
            functools.partial(train.validate_pairs, pairs=data.WholePairs(pairs, args.hidden), loss=loss)
            if pairs
            else nothing
        )
        return loader(args, samples, args.train_num, device), validate

    paths = data.find_photographs(args.image_path, progress)
    count = validation_count(args, min(args.train_num or len(paths), len(paths)))
    paths, held_out = data.hold_out(paths, count, args.seed)
    simulate, channels = args.objective == "exposure", model.arch.image_channels
    samples = data.Photographs(paths, args.crop_size, channels, simulate, args.hidden)
    if not held_out:
        validate = nothing
    elif simulate:
        validate = functools.partial(train.validate_pairs, pairs=data.SimulatedPairs(held_out, args.seed), loss=loss)
    else:
        crops = data.Photographs(held_out, args.crop_size, channels)
        validate = functools.partial(train.validate_recon, batches=loader(args, crops, 0, device))
    return loader(args, samples, args.train_num, device), validate


def nothing(model: torch.nn.Module) -> tuple[dict, dict]:
    """Returns no scores and no pictures: what validates where nothing is held out."""
    return {}, {}


def validation_pairs(args: argparse.Namespace, progress: data.Hook) -> list[tuple[str, Path, Path]]:
    if args.val_pairs:
        return data.read_pairs(args.val_path, args.val_pairs)
    return data.pairs_of(data.read_brackets([args.val_path], 0, progress))


def validation_count(args: argparse.Namespace, items: int) -> int:
    """Returns how many of the items are held out: at least one, unless the fraction is 0."""
    return max(1, round(args.val_fraction * items)) if args.val_fraction else 0


def loader(args: argparse.Namespace, samples: Dataset, count: int, device: torch.device) -> DataLoader:
    """Returns batches of `count` samples an epoch (0: each item once)."""
    return DataLoader(
        samples,
        args.batch_size,
        sampler=data.Draws(len(samples), count, args.seed, args.batch_size),
        num_workers=args.num_workers,
        persistent_workers=args.num_workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=data.start_worker,
    )


def sample_pair() -> list[np.ndarray]:
    """Returns the pair that run_infer.py fuses by default, (H, W, 3) BGR uint8 each; nothing where it is not there."""
    paths = get_infer_args([]).images
    return [read_image(path) for path in paths] if all(map(os.path.isfile, paths)) else []


def run_folder(args: argparse.Namespace) -> Path:
    """Returns the folder of the run to resume, where its checkpoint lies in one, otherwise a new one."""
    if args.resume_path:
        folder = Path(args.resume_path).absolute().parent.parent
        if (folder / "settings.json").is_file():
            return folder
    return make_run_folder(args.runs_path)


if __name__ == "__main__":
    with exit_on_error():
        main(ARGS)
