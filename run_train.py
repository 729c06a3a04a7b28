"""Trains DeepFuse: python run_train.py --image_path FOLDER [--objective recon|mef|exposure]."""

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from configs import APART, NEW_BEST, SAMPLE, SESSION, command, get_train_args, settings_with
from utils.errors import UserError, exit_on_error, user_errors
from utils.files import git_sha, make_run_folder, settings_block, write_json

if __name__ == "__main__":  # before the slow imports, so that --help is instant
    with exit_on_error():
        ARGS = get_train_args()

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models import Network, PyramidArchitecture, WeightsError, fuse_model
from utils.device import seed_everything
from utils.evaluation import MIN_SIDE
from utils.pictures.image import read_image
from utils.pictures.scenes import read_pairs
from utils.training import dataset as data
from utils.training import parallel, train
from utils.training import validate as validation
from utils.training.loss import Loss, MEFLoss, ReconLoss

LOG_EVERY = 10  # steps between points of TensorBoard's training curves
NO_PICTURE = 10  # a first loss above it means values far outside [0, 1]: the other terms are at most 2


def main(args: argparse.Namespace) -> None:
    start = time.perf_counter()
    seed_everything(args.seed)
    device = parallel.join_processes(args.device)
    say = print if args.verbose and parallel.rank() == 0 else lambda *_: None
    objective = objective_of(args)
    check_folders(args)
    model = network(args, objective).to(device)
    loss = objective.loss(args)
    samples, held_out, described = objective.data(args, model, say)
    batches = loader(args, samples, device)
    assert isinstance(batches.sampler, data.Draws)
    samples[next(iter(batches.sampler))]  # bad pictures raise here, before a run folder is made
    training = train.new_training(model, args.lr, args.ema)
    if args.resume_path:
        train.resume_training(args.resume_path, training)
        if training.epoch >= args.num_epochs and not is_due(args, training):
            raise UserError(f"{args.resume_path} has finished epoch {training.epoch}: expected a larger --num_epochs")

    lr_at = functools.partial(train.learning_rate, args.lr, args.lr_schedule, num_epochs=args.num_epochs)
    with Run(args, training, batches) as run:
        say(settings_block(run.settings))
        size = sum(weight.numel() for weight in model.parameters())
        say(f"{model.name} ({size:,} parameters) on {described}")
        say(f"An epoch has {batches.sampler.batches} steps of {args.batch_size} samples; run folder {run.folder}")
        say(f"TensorBoard: tensorboard --logdir {args.runs_path}")
        while True:
            if is_due(args, training):
                scores: dict = {}
                pictures: dict = {}
                if held_out is not None:  # an empty share must validate too: the processes wait for each other
                    scores, pictures = objective.validate(training.best_model, held_out, loss)
                say(run.after_validation(scores, pictures))
            if training.epoch >= args.num_epochs:
                break
            with run.epoch() as bar:
                trained = train.train_one_epoch(training, bar, loss, lr_at, args.clip_grad, args.amp, run.after_step)
            run.log({"epoch": training.epoch, "images_per_second": trained["images_per_second"]})
            run.save()
    taken = timedelta(seconds=round(time.perf_counter() - start))
    say(f"Finished Training in {taken}, best loss {training.best_loss:.4f}: {run.folder}")
    say(f"{command('infer')} UNDER OVER --weights {run.checkpoints / 'best.pth'}")


# The run: its folder and what it shows


class Run:
    """A run's folder (settings, checkpoints, TensorBoard) and progress bar; only the first process writes them."""

    def __init__(self, args: argparse.Namespace, training: train.Training, batches: DataLoader):
        self.args, self.training, self.batches = args, training, batches
        self.settings = settings_of(args, training)
        changed = self.settings["resumed"][-1]["changed"] if args.resume_path else {}
        if incomparable := sorted(settings_with(NEW_BEST) & changed.keys()):
            training.best_loss = math.inf
            warnings.warn(f"{', '.join(incomparable)} changed: losses do not compare, best starts anew", stacklevel=2)
        self.folder, self.checkpoints, self.writer, self.pair = None, Path(), None, []
        self.steps: list[dict[str, float]] = []  # since the last point in TensorBoard
        self.saved = time.monotonic()
        if parallel.rank() == 0:
            self.folder = run_folder(args)
            self.checkpoints = self.folder / "checkpoints"
            write_json(self.folder / "settings.json", self.settings)
            self.writer = SummaryWriter(self.folder / "logs", purge_step=training.step + 1)
            apart = settings_with(SESSION, APART) | {"git", "torch", "resumed"}  # these do not change the result
            first = ("objective", "model", "lr")  # the table shows few columns
            shown = {name: self.settings[name] for name in (*first, *self.settings) if name not in apart}
            validation.log_settings(self.writer, shown, objective_of(args).scores)
            self.pair = sample_pair()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if self.writer:
            self.writer.close()
            if kind and (self.checkpoints / "last.pth").exists() and self.args.verbose:
                print(f"\nGo on with: {command('train')} --resume_path {self.folder}")
        if not kind:  # after an error the others may wait for this process: torchrun ends them
            parallel.leave_processes()

    @contextlib.contextmanager
    def epoch(self) -> Iterator[tqdm]:
        """Yields the remaining batches of the epoch, with a progress bar."""
        sampler, training = self.batches.sampler, self.training
        assert isinstance(sampler, data.Draws)
        sampler.epoch, sampler.done = training.epoch + 1, training.batch
        title, hidden = f"Epoch [{sampler.epoch}/{self.args.num_epochs}]", self.folder is None or not self.args.verbose
        with (
            train.finishing_steps() as self.asked,
            tqdm(self.batches, title, sampler.batches, initial=training.batch, disable=hidden) as self.bar,
        ):
            try:
                yield self.bar
            except FloatingPointError:
                if all(value.isfinite().all() for value in training.model.state_dict().values()):
                    self.save()  # the weights are still those before the step; BatchNorm's means may have moved
                raise
            except torch.cuda.OutOfMemoryError as error:
                raise UserError("the GPU has too little memory: reduce --batch_size or --crop_size") from error

    def after_step(self, values: dict[str, float]) -> None:
        """Shows and logs a step; saves when it is time to, and before it stops on a signal."""
        training, loss = self.training, values["loss"]
        self.steps.append(values)
        mean = training.loss_sum / training.batch
        self.bar.set_postfix(learning_rate=f"{values['learning_rate']:.2e}", loss=f"{mean:.4f}")
        if training.step == 1 and loss > NO_PICTURE:
            warnings.warn(
                f"the first loss is {loss:.0f}: what these weights fuse is no picture in [0, 1]", stacklevel=2
            )
        if training.step % LOG_EVERY == 0:
            self.log({})
        stop = parallel.any_of(bool(self.asked), next(training.model.parameters()).device)
        if stop or time.monotonic() - self.saved >= 60 * self.args.save_every:
            self.save()
        if stop:
            raise KeyboardInterrupt(*self.asked)

    def after_validation(self, scores: dict[str, float], pictures: dict[str, np.ndarray]) -> str:
        """Logs the scores, saves the checkpoints, and returns a line to print."""
        training = self.training
        loss = scores.get("loss", training.loss)
        improved = training.judge(loss)
        if self.writer:
            if self.pair:
                pictures["sample pair"] = validation.fused_sample(training.best_model, self.pair)
            scores_by_tag = {f"validation/{name}": score for name, score in scores.items()}
            validation.log(self.writer, training.step, scores_by_tag, pictures)
            if improved:
                train.save_checkpoint(self.checkpoints / f"epoch{training.epoch:03}-loss{loss:.3f}.pth", training)
                train.save_weights(self.checkpoints / "best.pth", training, self.settings)
            self.save()  # last: if the run is stopped before this line, the resumed one validates again
        shown = ", ".join(f"{name} {score:.4f}" for name, score in scores.items()) or "nothing is held out"
        return f"validation: {shown}" + " (best)" * improved

    def log(self, values: dict[str, float]) -> None:
        """Writes a point of the training curves: the means of the steps since the last point, and `values`."""
        if self.steps:
            values = {name: float(np.mean([step[name] for step in self.steps])) for name in self.steps[0]} | values
            self.steps.clear()
        if self.writer:
            validation.log(self.writer, self.training.step, {f"train/{name}": value for name, value in values.items()})

    def save(self) -> None:
        if self.writer:
            train.save_checkpoint(self.checkpoints / "last.pth", self.training)
        self.saved = time.monotonic()


def is_due(args: argparse.Namespace, training: train.Training) -> bool:
    """Returns whether a validation is due: an epoch has just ended, --val_every asks for it, and it is not done yet."""
    pending = training.validated < training.epoch and training.batch == 0
    return pending and (training.epoch % args.val_every == 0 or training.epoch == args.num_epochs)


def run_folder(args: argparse.Namespace) -> Path:
    """Returns the folder of the run to resume, otherwise a new one."""
    if args.resume_path:
        return Path(args.resume_path).absolute().parent.parent
    if not args.run_name:
        return make_run_folder(args.runs_path)
    folder = Path(args.runs_path) / args.run_name
    if args.run_name != folder.name:
        raise UserError(f"--run_name is {args.run_name!r}: expected the name of a folder in {args.runs_path}")
    if folder.exists():
        raise UserError(f"{folder} is there already: take another --run_name, or --resume_path {folder}")
    folder.mkdir(parents=True)
    return folder


def settings_of(args: argparse.Namespace, training: train.Training) -> dict:
    """Returns all settings of a run, with the list "resumed": what changed each time it was resumed."""
    device = next(training.model.parameters()).device
    settings = vars(args) | {"model": training.model.name, "device": str(device), "processes": parallel.ranks()}
    settings |= {"git": git_sha(), "torch": str(torch.__version__)}
    if not args.resume_path:
        return settings
    stored = json.loads((run_folder(args) / "settings.json").read_text(encoding="utf-8"))
    changed = {name: [stored.get(name), value] for name, value in settings.items() if stored.get(name) != value}
    session = settings_with(SESSION)
    changed = {name: values for name, values in changed.items() if name not in session}
    history = stored.get("resumed")
    resumed = {"epoch": training.epoch, "batch": training.batch, "changed": changed}
    return settings | {"resumed": [*(history if isinstance(history, list) else []), resumed]}


def sample_pair() -> list[np.ndarray]:
    """Returns the pair that run_infer.py fuses by default, (H, W, 3) BGR uint8 each; [] if its files are missing."""
    return [read_image(path) for path in SAMPLE] if all(map(os.path.isfile, SAMPLE)) else []


# The network


def network(args: argparse.Namespace, objective: "Objective") -> Network:
    """Returns the network to train: from the checkpoint to resume, from --weights, or new.

    Its checkpoint says how to fuse as it was trained: with --no-hidden the shots as they are, not exposed anew; a loss
    that leaves brightness free asks for a stretched picture.
    """
    name = None if args.model == "auto" else args.model
    if not (name or args.resume_path or args.weights):
        name = objective.network
    with user_errors(WeightsError):
        model = fuse_model(name, args.resume_path or args.weights, 1 if args.gray else 3)
    if model.halo is None:
        exposures = PyramidArchitecture().exposures if args.hidden else 0
        model.arch = dataclasses.replace(model.arch, exposures=exposures)
    free = objective.loss is mef_loss and args.lum_weight == args.clip_weight == 0  # brightness is
    if free and hasattr(model.arch, "stretched"):
        model.arch = dataclasses.replace(model.arch, stretched=True)
    if parallel.ranks() > 1 and any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise UserError(f"{model.name} has BatchNorm, which needs whole batches: train it in one process")
    return model


# Data: (samples to train on, held-out data for validation or None, description of both)

Data = tuple[Dataset, object, str]


def photographs(args: argparse.Namespace, model: Network, say: Callable) -> Data:
    """Returns the data of objective recon: squares of photographs, to be reconstructed."""
    paths, held_out = split_photographs(args, say)
    channels = model.arch.image_channels
    crops = None
    if held_out:
        squares = data.Photographs(held_out, args.crop_size, channels)
        draws = parallel.share(list(data.Draws(len(held_out), 0, args.seed)))
        crops = DataLoader(squares, args.batch_size, sampler=draws)
    samples = data.Photographs(paths, args.crop_size, channels)
    return samples, crops, f"{len(paths)} photographs, validated on {len(held_out)} others"


def simulated_shots(args: argparse.Namespace, model: Network, say: Callable) -> Data:
    """Returns the data of objective exposure: stacks simulated from photographs, to be fused."""
    paths, held_out = split_photographs(args, say)
    samples = data.Photographs(paths, args.crop_size, 1, fusing_of(args, model))
    pairs = data.SimulatedPairs(parallel.share([*enumerate(held_out)]), args.seed) if held_out else None
    return samples, pairs, f"shots simulated from {len(paths)} photographs, validated on {len(held_out)} others"


def brackets(args: argparse.Namespace, model: Network, say: Callable) -> Data:
    """Returns the data of objective mef: stacks of brackets, and simulated ones if --photo_path is given."""
    scenes = data.read_brackets(args.image_path, args.cache_mb, scanning(say))
    if not args.val_path:
        scenes, held_out = data.hold_out(scenes, validation_count(args, len(scenes)), args.seed)
        pairs = data.pairs_of(held_out)
    elif args.val_pairs:
        pairs = read_pairs(args.val_path, args.val_pairs)
    else:
        pairs = data.pairs_of(data.read_brackets([args.val_path], 0, scanning(say)))
    described, simulated, fusing = f"{len(scenes)} scenes", None, fusing_of(args, model)
    if args.photo_path:
        paths = data.find_photographs(args.photo_path, scanning(say))
        simulated = data.Photographs(paths, args.crop_size, 1, fusing)
        simulated[data.Draw(0, args.seed, args.seed)]  # bad ones raise here, even if the first sample is a bracket
        described += f" and shots simulated from {len(paths)} photographs"
    samples = data.BracketStacks(scenes, args.crop_size, simulated, fusing)
    whole = data.WholePairs(parallel.share(pairs), args.hidden) if pairs else None
    return samples, whole, f"{described}, validated on {len(pairs)} pairs"


def fusing_of(args: argparse.Namespace, model: Network) -> data.Fusing:
    """Returns how samples to fuse are made: networks that work at full size see the shots as they are."""
    exposures = model.arch.exposures if model.halo is None else 0
    return data.Fusing(exposures, args.hidden, args.shots, args.patches)


def split_photographs(args: argparse.Namespace, say: Callable) -> tuple[list[str], list[str]]:
    """Returns the paths of the photographs to train on, and of those held out for validation."""
    paths = data.find_photographs(args.image_path, scanning(say))
    count = validation_count(args, min(args.train_num or len(paths), len(paths)))
    return data.hold_out(paths, count, args.seed)


def validation_count(args: argparse.Namespace, items: int) -> int:
    """Returns how many of `items` to hold out: at least one, unless --val_fraction is 0."""
    return max(1, round(args.val_fraction * items)) if args.val_fraction else 0


def scanning(say: Callable) -> data.Hook:
    """Returns a maker of progress bars for scanning folders, hidden where `say` does not print."""
    return functools.partial(tqdm, desc="Scanning", disable=say is not print)


def loader(args: argparse.Namespace, samples: Dataset, device: torch.device) -> DataLoader:
    """Returns the batches of an epoch, or this process's share of each of them."""
    rank, ranks = parallel.rank(), parallel.ranks()
    if args.batch_size % ranks:
        raise UserError(f"--batch_size is {args.batch_size}: expected a multiple of the {ranks} processes")
    return DataLoader(
        samples,
        args.batch_size // ranks,
        sampler=data.Draws(len(samples), args.train_num, args.seed, args.batch_size, rank, ranks),  # type: ignore[arg-type]
        collate_fn=data.stack_alike,
        num_workers=args.num_workers,
        persistent_workers=args.num_workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=data.start_worker,
    )


# Objectives


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a training learns: its network, data, loss and validation."""

    network: str  # the default for --model
    data: Callable[..., Data]  # (settings, network, say) -> Data
    loss: Callable[[argparse.Namespace], Loss]
    validate: Callable[..., tuple[dict, dict]]  # (network, held-out data, loss) -> (scores, pictures)
    least_crop: int  # smallest --crop_size, in pixels; from 44 a sample's short side is at least 11, MEF-SSIM's window
    rgb: bool = False  # whether it also trains RGB networks
    takes: tuple[str, ...] = ()  # settings that only this objective has
    scores: tuple[str, ...] = ("validation/mef_ssim", "validation/mef_ssim_lum")  # in TensorBoard's table of runs


def mef_loss(args: argparse.Namespace) -> Loss:
    return MEFLoss(args.scale_weights, args.lum_weight, args.clip_weight)


OBJECTIVES = {
    "recon": Objective(
        "DeepFuse",
        photographs,
        lambda args: ReconLoss(),
        validation.validate_recon,
        16,
        rgb=True,
        scores=("validation/ssim",),
    ),
    "mef": Objective(
        "DeepFuse_pyramid", brackets, mef_loss, validation.validate_pairs, MIN_SIDE, takes=("val_path", "photo_path")
    ),
    "exposure": Objective("DeepFuse_pyramid", simulated_shots, mef_loss, validation.validate_pairs, MIN_SIDE),
}


def objective_of(args: argparse.Namespace) -> Objective:
    """Returns the entry of OBJECTIVES that --objective names; raises UserError if other settings do not fit it."""
    if args.objective not in OBJECTIVES:
        raise UserError(f"no objective is called {args.objective!r}: expected one of {', '.join(OBJECTIVES)}")
    objective = OBJECTIVES[args.objective]
    if args.crop_size < objective.least_crop:
        least = objective.least_crop
        raise UserError(f"--crop_size is {args.crop_size}: objective {args.objective} needs at least {least}")
    if not (args.gray or objective.rgb):
        raise UserError(f"objective {args.objective} trains luminance networks: use --gray, or --objective recon")
    for name, other in OBJECTIVES.items():
        foreign = [option for option in other.takes if option not in objective.takes and getattr(args, option)]
        if foreign:
            given = " and ".join(f"--{option}" for option in foreign)
            raise UserError(f"{given}: for objective {name} alone, not {args.objective}")
    return objective


def check_folders(args: argparse.Namespace) -> None:
    """Raises FileNotFoundError for a folder to read that is not there; names its option."""
    for option in ("image_path", "photo_path", "val_path"):
        value = getattr(args, option) or []
        for folder in [value] if isinstance(value, str) else value:
            if not os.path.isdir(folder):
                raise FileNotFoundError(
                    f"{folder}: no such folder: give --{option} FOLDER (data of recipes: runs/pretrained/README.md)"
                )


if __name__ == "__main__":
    with exit_on_error():
        main(ARGS)
