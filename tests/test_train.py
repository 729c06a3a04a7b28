"""Objectives, learning rates, one epoch, checkpoints."""

import copy
import math
import signal

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from models import fuse_model
from utils.training import train
from utils.training.dataset import Sample, stack_alike
from utils.training.loss import MEFLoss, ReconLoss


@pytest.fixture
def model():
    torch.manual_seed(0)
    return fuse_model("DeepFuse_3x3")


def constant(lr):
    return lambda epochs_done: lr


def photographs(count, side=24, seed=0):
    """Photographs to reconstruct: a batch of one group."""
    y = torch.rand(count, 1, 1, side, side, generator=torch.manual_seed(seed))
    return [Sample(y.expand(-1, 2, -1, -1, -1), y, name="\n".join([f"{seed}.jpg"] * count))]


def test_recon_losses_are_those_of_the_photograph_fused_with_itself(model):
    (sample,) = photographs(2, 32)
    losses = ReconLoss()(model.fuse(sample.exposures), sample.judges.flatten(1, 2))
    for y, loss in zip(sample.exposures[:, 0], losses, strict=True):
        pictures = model(torch.stack([y, y])[None])[0, 0].detach().numpy(), y[0].numpy()
        mirrored = [np.pad(picture, 5, mode="reflect") for picture in pictures]
        score = structural_similarity(
            *mirrored, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert loss.item() == pytest.approx(1 - score, abs=1e-5)


def test_a_step_judges_by_the_judges(pyramid):
    loss, exposures, judges = MEFLoss(), torch.rand(1, 2, 1, 64, 64), torch.rand(1, 3, 1, 64, 64)
    expected = loss(pyramid.fuse(exposures), judges[:, :, 0]).mean()
    found = train.backward(pyramid, [Sample(exposures, judges)], loss)
    torch.testing.assert_close(found.pop("loss"), expected.detach())
    torch.testing.assert_close(sum(found.values()), expected.detach())
    assert found.keys() == {"loss_mef_ssim", "loss_mef_ssim_lum", "loss_clipped"}


def test_a_batch_of_many_shapes_has_the_gradient_of_its_samples_one_at_a_time(pyramid):
    torch.manual_seed(0)
    kinds = [(2, 32, 48), (3, 32, 48), (2, 32, 64), (2, 48, 32), (2, 32, 48), (3, 32, 48), (2, 32, 48)]
    samples = [
        Sample(torch.rand(k, 1, h, w), torch.rand(4, 1, h, w), str(number)) for number, (k, h, w) in enumerate(kinds)
    ]
    loss = MEFLoss()
    alone = [loss.parts(pyramid.fuse(s.exposures[None]), s.judges[None, :, 0]) for s in samples]
    torch.stack([loss.total(parts) for parts in alone]).mean().backward()
    expected = [parameter.grad.clone() for parameter in pyramid.parameters()]
    pyramid.zero_grad()
    batch = stack_alike(samples)
    found = train.backward(pyramid, batch, loss)
    assert [group.name.split() for group in batch] == [["0", "4", "6"], ["1", "5"], ["2"], ["3"]]
    assert train.size_of(batch) == 7 and max(gradient.abs().max() for gradient in expected) > 1e-3
    for parameter, gradient in zip(pyramid.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-5)
    for name in alone[0]:
        mean = np.mean([parts[name].item() for parts in alone])
        assert found[f"loss_{name}"].item() == pytest.approx(mean, abs=1e-6)


def test_learning_rates():
    exponential = [train.learning_rate(1e-4, "exponential", epochs, 100) for epochs in (0, 0.99, 1, 2.5)]
    assert exponential == pytest.approx([1e-4, 1e-4, 0.9e-4, 0.81e-4])
    cosine = [train.learning_rate(1e-3, "cosine", epochs, 100) for epochs in (0, 1, 2, 51, 100)]
    assert cosine == pytest.approx([0, 0.5e-3, 1e-3, 0.5e-3, 0])
    with pytest.raises(ValueError, match="exponential or cosine"):
        train.learning_rate(1, "linear", 0, 1)


def test_an_epoch_learns_and_counts(model):
    training = train.new_training(model, lr=1e-3)
    batches = [photographs(4, 32, seed) for seed in range(4)]
    reported = []
    losses = [
        train.train_one_epoch(training, batches, ReconLoss(), constant(1e-3), after_step=reported.append)["loss"]
        for _ in range(5)
    ]
    assert losses[-1] < losses[0] and (training.epoch, training.step, len(reported)) == (5, 20, 20)
    assert set(reported[0]) == {"learning_rate", "loss"}


def test_an_epoch_goes_on_where_it_was_stopped(tmp_path, model):
    batches = [photographs(2, seed=seed) for seed in range(5)]
    weights, at = copy.deepcopy(model), lambda epochs_done: 1e-2 * (1 + epochs_done)
    unbroken = train.new_training(model, lr=1e-2, ema=0.5)
    expected = train.train_one_epoch(unbroken, batches, ReconLoss(), at)

    def stop(values):
        if training.batch == 3:
            raise KeyboardInterrupt

    training = train.new_training(weights, lr=1e-2, ema=0.5)
    with pytest.raises(KeyboardInterrupt):
        train.train_one_epoch(training, batches, ReconLoss(), at, after_step=stop)
    train.save_checkpoint(tmp_path / "last.pth", training)
    again = train.new_training(fuse_model(weights=tmp_path / "last.pth"), lr=1e-2, ema=0.5)
    train.resume_training(tmp_path / "last.pth", again)
    assert (again.epoch, again.batch, again.step) == (0, 3, 3)
    found = train.train_one_epoch(again, batches[3:], ReconLoss(), at)
    assert found["loss"] == expected["loss"]
    for a, b in ((unbroken.model, again.model), (unbroken.average, again.average)):
        assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(model, value):
    before = copy.deepcopy(model.state_dict())
    batches = [[photographs(1)[0]._replace(exposures=torch.full((1, 1, 1, 24, 24), value))]]
    with pytest.raises(FloatingPointError, match=r"the loss is nan.* in epoch 1, step 1.*of 0.jpg: lower --lr"):
        train.train_one_epoch(train.new_training(model, 1e-3), batches, ReconLoss(), constant(1e-3))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_a_gradient_that_is_not_finite_stops_before_the_step(model):
    class Flat(ReconLoss):  # a finite loss, 0, whose gradient is not
        def parts(self, fused, judges):
            return {"flat": (fused.flatten()[:1] * 0).sqrt()}

    before = copy.deepcopy(model.state_dict())
    training = train.new_training(model, lr=1e-3)
    with pytest.raises(
        FloatingPointError, match="the loss is 0.0, its gradient nan, in epoch 1, step 1.*of 0.jpg, 1.jpg: "
    ):
        train.train_one_epoch(training, [photographs(2) + photographs(1, 32, seed=1)], Flat(), constant(1e-3))
    assert (training.epoch, training.step) == (0, 0)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_clipped_gradient(model):
    training = train.new_training(model, lr=1.0)
    training.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = torch.cat([p.detach().clone().flatten() for p in model.parameters()])
    train.train_one_epoch(training, [photographs(1)], ReconLoss(), constant(1.0), clip_grad=1e-3)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_average_is_the_recursion(model):
    training = train.new_training(model, lr=1e-2, ema=0.5)
    weights = [next(model.parameters()).detach().clone()]
    for _ in range(4):
        train.train_one_epoch(training, [photographs(1)], ReconLoss(), constant(1e-2))
        weights.append(next(model.parameters()).detach().clone())
    expected = weights[0]
    for step, weight in enumerate(weights[1:], 1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(next(training.best_model.parameters()), expected)


def test_average_of_batch_norm_has_its_statistics():
    model = fuse_model("DeepFuse_bn")
    training = train.new_training(model, lr=1e-3, ema=0.9)
    train.train_one_epoch(training, [photographs(2)] * 3, ReconLoss(), constant(1e-3))
    statistics = {key: value for key, value in training.average.state_dict().items() if "running" in key}
    assert statistics and all(value.isfinite().all() for value in statistics.values())
    state = training.average.state_dict()
    counts = [state[key].item() for key in state if "num_batches" in key]
    assert counts == [3] * 5


def test_checkpoint_restores_everything(tmp_path, model):
    training = train.new_training(model, lr=1e-3, ema=0.9)
    train.train_one_epoch(training, [photographs(2)], ReconLoss(), constant(1e-3))
    training.best_loss = 0.25
    train.save_checkpoint(tmp_path / "last.pth", training)
    again = train.new_training(fuse_model(weights=tmp_path / "last.pth"), lr=1e-3, ema=0.9)
    train.resume_training(tmp_path / "last.pth", again)
    assert (again.epoch, again.step, again.best_loss) == (1, 1, 0.25)
    for a, b in ((training.model, again.model), (training.average, again.average)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert len(again.optimizer.state_dict()["state"]) == len(list(model.parameters()))


def test_weights_to_ship_hold_no_run(tmp_path, model):
    settings = {"objective": "recon", "seed": 0, "git": "abc", "torch": "2", "image_path": "not shipped"}
    train.save_weights(tmp_path / "best.pth", train.new_training(model, 1e-3), settings)
    content = torch.load(tmp_path / "best.pth", weights_only=True)
    assert (
        content.keys() == {"version", "name", "arch", "model", "provenance"}
        and "image_path" not in content["provenance"]
    )
    with pytest.raises(ValueError, match="no run to resume.*--weights"):
        train.resume_training(tmp_path / "best.pth", train.new_training(model, 1e-3))


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path, model, monkeypatch):
    training = train.new_training(model, 1e-3)
    train.save_checkpoint(tmp_path / "last.pth", training)
    old = (tmp_path / "last.pth").read_bytes()

    def interrupted(path, content):
        with path.open("wb") as file:
            file.write(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(type(tmp_path), "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.save_checkpoint(tmp_path / "last.pth", training)
    assert (tmp_path / "last.pth").read_bytes() == old and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_an_error_of_the_disk(tmp_path, model, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    training = train.new_training(model, 1e-3)
    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        train.save_checkpoint(tmp_path / "last.pth", training)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "poison",
    [
        {"epoch": "two"},
        {"batch": -1},
        {"step": 1.5},
        {"best_loss": math.nan},
        {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        {"optimizer": {"state": {0: "text"}}},
        {"optimizer": []},
        {"model": {}},
    ],
)
def test_poisoned_checkpoints_are_refused(tmp_path, model, poison):
    training = train.new_training(model, lr=1e-3)
    train.train_one_epoch(training, [photographs(1)], ReconLoss(), constant(1e-3))
    train.save_checkpoint(tmp_path / "last.pth", training)
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    torch.save(content | poison, tmp_path / "last.pth")
    with pytest.raises(ValueError, match="last.pth is damaged"):
        train.resume_training(tmp_path / "last.pth", train.new_training(fuse_model("DeepFuse_3x3"), lr=1e-3))


def test_the_optimizers_settings_are_the_runs(tmp_path, model):
    training = train.new_training(model, lr=1e-3)
    train.train_one_epoch(training, [photographs(1)], ReconLoss(), constant(1e-3))
    training.optimizer.param_groups[0]["maximize"] = True
    train.save_checkpoint(tmp_path / "last.pth", training)
    again = train.new_training(fuse_model("DeepFuse_3x3"), lr=1e-3)
    train.resume_training(tmp_path / "last.pth", again)
    assert not again.optimizer.param_groups[0]["maximize"] and again.optimizer.state


def test_the_first_signal_waits_for_the_step_and_the_second_does_not():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), train.finishing_steps() as asked:
        assert asked == []
        signal.raise_signal(signal.SIGTERM)
        assert asked == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
