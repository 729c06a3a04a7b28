"""Training: steps, epochs, learning rates, checkpoints."""

import contextlib
import copy
import io
import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from models import Network, WeightsError, read_checkpoint
from utils import __version__
from utils.errors import UserError, user_errors
from utils.files import replacing
from utils.training import parallel
from utils.training.dataset import Sample
from utils.training.loss import Loss

WARM_UP = 0.02  # share of a cosine run in which the learning rate rises
# fields of a `Training` that its checkpoints keep
PROGRESS = ("epoch", "batch", "step", "loss_sum", "loss", "validated", "best_loss")


def learning_rate(base: float, schedule: str, epochs_done: float, num_epochs: int) -> float:
    """Returns the learning rate after `epochs_done` (fractions count) of `num_epochs`.

    Args:
        schedule: "constant"; "exponential" multiplies by 0.9 after each epoch; "cosine" rises linearly for WARM_UP of
            the run and falls to zero along half a cosine.
    """
    if schedule == "constant":
        return base
    if schedule == "exponential":
        return base * 0.9 ** int(epochs_done)
    if schedule == "cosine":
        share = epochs_done / num_epochs
        if share < WARM_UP:
            return base * share / WARM_UP
        return base * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2
    raise UserError(f"no schedule is called {schedule!r}: expected constant, exponential or cosine")


# State: what is trained, saved and restored


@dataclass
class Training:
    """A training run between two steps."""

    model: Network
    optimizer: torch.optim.Optimizer
    average: Network | None = None  # exponential moving average of the model's weights, where one is kept
    ema: float = 0.0  # its decay per step
    epoch: int = 0  # last finished
    batch: int = 0  # number of the last finished batch of the epoch after it
    step: int = 0  # last finished of the run
    loss_sum: float = 0.0  # of the batches of the unfinished epoch
    loss: float = math.inf  # mean of the last finished epoch
    validated: int = 0  # epoch of the last validation
    best_loss: float = math.inf

    @property
    def best_model(self) -> Network:
        """The network to validate and to ship: the average where one is kept."""
        return self.model if self.average is None else self.average

    def judge(self, loss: float) -> bool:
        """Takes note of the validation after an epoch; returns whether its loss is the best so far."""
        improved = loss < self.best_loss
        self.validated, self.best_loss = self.epoch, min(loss, self.best_loss)
        return improved


def new_training(model: Network, lr: float, ema: float = 0.0) -> Training:
    """Returns a run at its start, with Adam. `ema` is the decay per step of the average of weights; 0 keeps none.

    The model is put into the channels-last layout, in which convolutions of few channels are several times faster.
    """
    model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False) if ema else None
    return Training(model, torch.optim.Adam(model.parameters(), lr, betas=(0.9, 0.99)), average, ema)


def save_checkpoint(path: Path, training: Training) -> None:
    """Writes all that `resume_training` needs; the file appears whole or not at all.

    Nothing random is in it: a sample depends on its draw alone.
    """
    content = weights_of(training.best_model) | {name: getattr(training, name) for name in PROGRESS}
    content["optimizer"] = {"state": training.optimizer.state_dict()["state"]}
    if training.average is not None:
        content["raw"] = training.model.state_dict()  # "model" is the average
    write(path, content)


def resume_training(path: str | Path, training: Training) -> None:
    """Restores what `save_checkpoint` wrote into a run at its start, of the same network.

    Of the optimizer the state is taken, and no settings: those are the run's.

    Raises:
        FileNotFoundError, ValueError: as `models.read_checkpoint`; or the file holds weights without a run's state, or
            of another network, or is damaged.
    """
    with user_errors(WeightsError):
        content = read_checkpoint(path)
    if missing := {"model", "epoch", "step", "best_loss", "optimizer"} - content.keys():
        raise UserError(f"{path} holds no run to resume (no {', '.join(sorted(missing))}): start from it by --weights")
    progress = {name: content.get(name, getattr(training, name)) for name in PROGRESS}
    for name, value in progress.items():
        kind = type(getattr(training, name))
        if type(value) is not kind or (not value >= 0 if kind is int else math.isnan(value)):
            found = value if isinstance(value, int | float) else f"of type {type(value).__name__}"
            raise UserError(f"{path} is damaged: {name} is {found}, expected {kind.__name__}, 0 or more")
    try:
        training.model.load_state_dict(content.get("raw", content["model"]))
        if training.average is not None:
            training.average.load_state_dict(content["model"])
        training.optimizer.load_state_dict(training.optimizer.state_dict() | {"state": content["optimizer"]["state"]})
        for weight, state in training.optimizer.state.items():
            shapes = {name: state[name].shape for name in ("exp_avg", "exp_avg_sq", "step")}
            if shapes != {"exp_avg": weight.shape, "exp_avg_sq": weight.shape, "step": ()}:
                raise UserError("the optimizer's state has other shapes than the weights")
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged, or of another network: {text}") from error
    for name, value in progress.items():
        setattr(training, name, value)


def save_weights(path: Path, training: Training, settings: dict) -> None:
    """Writes the checkpoint to ship: the network's name, architecture and weights, and how they were made."""
    provenance = {"epoch": training.epoch, "loss": training.best_loss}
    provenance |= {name: settings[name] for name in ("objective", "seed", "git", "torch")}
    write(path, weights_of(training.best_model) | {"provenance": provenance})


def write(path: Path, content: dict) -> None:
    """Writes a checkpoint; the file appears whole or not at all.

    Raises:
        OSError: the disk is full, say (`torch.save` itself would raise a RuntimeError without the reason).
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def weights_of(model: Network) -> dict:
    """Returns what rebuilds a network: its name, architecture and weights; and the version of this program."""
    return {"version": __version__, "name": model.name, "arch": asdict(model.arch), "model": model.state_dict()}


# One epoch


def train_one_epoch(
    training: Training,
    batches: Collection[Sequence[Sample]],
    loss: Loss,
    lr_at: Callable[[float], float],
    clip_grad: float = 0.0,
    amp: bool = False,
    after_step: Callable[[dict], None] = lambda values: None,
) -> dict[str, float]:
    """Trains on the batches that are left of an epoch; `training.epoch` is one more afterwards.

    In several processes each has its share of every batch; gradients and losses are the means over all of them.

    Args:
        batches: sized; from `stack_alike`.
        lr_at: the learning rate after so many epochs, fractions included.
        clip_grad: largest norm of the gradient; 0 leaves it alone.
        amp: whether the network computes in bfloat16; the loss does not.
        after_step: is called with the step's mean losses and "learning_rate". What it raises ends the epoch:
            `training` is then what a checkpoint needs to go on with the next batch.

    Returns:
        "loss", the mean over the epoch's batches; "images_per_second" of all processes, since the start or resumption.

    Raises:
        FloatingPointError: a loss or a gradient is not finite; the weights are as they were before that step.
    """
    model, optimizer = training.model.train(), training.optimizer
    count, start, total = 0, time.perf_counter(), training.batch + len(batches)
    for batch in batches:
        lr = lr_at(training.epoch + (training.batch + 0.5) / total)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        losses = backward(model, batch, loss, amp)
        parallel.average_gradients(model)
        means = parallel.mean(torch.stack(list(losses.values()))).tolist()
        values = dict(zip(losses, means, strict=True))
        value = values["loss"]
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip_grad or math.inf).item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            names = ", ".join(dict.fromkeys("\n".join(group.name for group in batch).splitlines())) or "unknown"
            raise FloatingPointError(
                f"the loss is {value}, its gradient {norm}, in epoch {training.epoch + 1}, step {training.batch + 1}, "
                f"at learning rate {lr:.2g}, with samples of {names}: lower --lr, or set --clip_grad"
            )
        optimizer.step()
        training.batch, training.step = training.batch + 1, training.step + 1
        if training.average is not None:
            update_average(training.average, model, min(training.ema, (1 + training.step) / (10 + training.step)))
        training.loss_sum, count = training.loss_sum + value, count + size_of(batch) * parallel.ranks()
        after_step(values | {"learning_rate": lr})
    training.loss = training.loss_sum / training.batch
    training.epoch, training.batch, training.loss_sum = training.epoch + 1, 0, 0.0
    return {"loss": training.loss, "images_per_second": count / (time.perf_counter() - start)}


def backward(model: Network, batch: Sequence[Sample], loss: Loss, amp: bool = False) -> dict[str, torch.Tensor]:
    """Adds the gradients of a batch's mean loss, one group after another; returns its mean and those of its parts."""
    device, size = next(model.parameters()).device, size_of(batch)
    means: dict[str, torch.Tensor] = {}
    for group in batch:
        exposures, judges = (x.to(device, non_blocking=True) for x in (group.exposures, group.judges))
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            fused = model.fuse(exposures)
        parts = loss.parts(fused.float(), judges.flatten(1, 2))
        losses = {"loss": loss.total(parts)}
        if len(parts) > 1:
            losses |= {f"loss_{name}": part for name, part in parts.items()}
        share = len(exposures) / size
        (share * losses["loss"].mean()).backward()
        for name, part in losses.items():
            means[name] = share * part.detach().mean() + means.get(name, 0)
    return means


def size_of(batch: Sequence[Sample]) -> int:
    """Returns the number of a batch's samples."""
    return sum(len(group.exposures) for group in batch)


@contextlib.contextmanager
def finishing_steps() -> Iterator[list[int]]:
    """Yields a list that gets the number of a signal to stop (Ctrl-C, SIGTERM, SIGHUP), to be looked at after a step.

    A second signal is a KeyboardInterrupt at once.
    """
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt(number)
        asked.append(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # nohup ignores SIGHUP: so it stays
            signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the average's weights and buffers towards the model's: average = decay * average + (1 - decay) * model."""
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)
