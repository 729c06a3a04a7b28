"""Objectives, learning rates, one epoch, checkpoints."""

import copy
import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from models import fuse_model
from models.DeepFuse import Architecture
from utils import util_train as train
from utils.util_dataset import Sample
from utils.util_loss import MEFLoss


@pytest.fixture
def model():
    torch.manual_seed(0)
    return fuse_model("DeepFuse_3x3")


def constant(lr):
    return lambda epochs_done: lr


def photographs(count, side=24, seed=0):
    """A batch for reconstruction."""
    y = torch.rand(count, 1, 1, side, side, generator=torch.manual_seed(seed))
    return Sample(y, y[:, :0], torch.ones(count))


def recon(model, sample):
    return train.recon_losses(model, sample, loss=None)


def test_recon_losses_are_those_of_the_photograph_fused_with_itself(model):
    sample = photographs(2, 32)
    for y, loss in zip(sample.exposures[:, 0], recon(model, sample), strict=True):
        pictures = model(torch.stack([y, y])[None])[0, 0].detach().numpy(), y[0].numpy()
        mirrored = [np.pad(picture, 5, mode="reflect") for picture in pictures]
        score = structural_similarity(
            *mirrored, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert loss.item() == pytest.approx(1 - score, abs=1e-5)


def test_fusion_losses_of_a_sample_ignore_its_neighbours(model):
    loss = MEFLoss()
    batch = Sample(torch.rand(3, 2, 1, 48, 48), torch.rand(3, 5, 1, 48, 48), torch.ones(3))
    together = train.fusion_losses(model, batch, loss)
    alone = [train.fusion_losses(model, Sample(*(x[i : i + 1] for x in batch)), loss) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-6)


def test_fusion_losses_judge_by_the_judges_at_the_factor():
    pyramid, loss = fuse_model("DeepFuse_pyramid"), MEFLoss()
    exposures, judges = torch.rand(1, 2, 1, 64, 64), torch.rand(1, 3, 1, 64, 64)
    expected = loss(pyramid.fuse(exposures, 2), judges[:, :, 0])
    found = train.fusion_losses(pyramid, Sample(exposures, judges, torch.tensor([2])), loss)
    torch.testing.assert_close(found, expected)


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
        train.train_one_epoch(training, batches, recon, constant(1e-3), report=reported.append)["loss"]
        for _ in range(5)
    ]
    assert losses[-1] < losses[0] and (training.epoch, training.step, len(reported)) == (5, 20, 20)
    assert set(reported[0]) == {"learning_rate", "loss"}


def test_batches_of_unequal_size_count_by_samples(model):
    batches = [photographs(3), photographs(1, seed=1)]
    expected = torch.cat([recon(model, batch) for batch in batches]).mean().item()
    trained = train.train_one_epoch(train.new_training(model, 0), batches, recon, constant(0.0))
    assert trained["loss"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(model, value):
    before = copy.deepcopy(model.state_dict())
    batches = [photographs(1)._replace(exposures=torch.full((1, 1, 1, 24, 24), value))]
    with pytest.raises(FloatingPointError, match=r"the loss is nan in epoch 1, step 1.*--lr"):
        train.train_one_epoch(train.new_training(model, 1e-3), batches, recon, constant(1e-3))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_weights_that_are_not_finite_end_the_epoch(model):
    def flat(model, exposures):  # a finite loss, 0, whose gradient is not
        return (next(model.parameters()).flatten()[:1] * 0).sqrt()

    training = train.new_training(model, lr=1e-3)
    with pytest.raises(FloatingPointError, match="weights are not finite after epoch 1"):
        train.train_one_epoch(training, [photographs(1)], flat, constant(1e-3))
    assert training.epoch == 0


def test_clipped_gradient(model):
    training = train.new_training(model, lr=1.0)
    training.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = torch.cat([p.detach().clone().flatten() for p in model.parameters()])
    train.train_one_epoch(training, [photographs(1)], recon, constant(1.0), clip_grad=1e-3)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_average_is_the_recursion(model):
    training = train.new_training(model, lr=1e-2, ema=0.5)
    weights = [next(model.parameters()).detach().clone()]
    for _ in range(4):
        train.train_one_epoch(training, [photographs(1)], recon, constant(1e-2))
        weights.append(next(model.parameters()).detach().clone())
    expected = weights[0]
    for step, weight in enumerate(weights[1:], 1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(next(training.best_model.parameters()), expected)


def test_average_of_batch_norm_has_its_statistics():
    model = fuse_model("DeepFuse_bn")
    training = train.new_training(model, lr=1e-3, ema=0.9)
    train.train_one_epoch(training, [photographs(2)] * 3, recon, constant(1e-3))
    statistics = {key: value for key, value in training.average.state_dict().items() if "running" in key}
    assert statistics and all(value.isfinite().all() for value in statistics.values())
    state = training.average.state_dict()
    counts = [state[key].item() for key in state if "num_batches" in key]
    assert counts == [3] * 5


def test_checkpoint_restores_everything(tmp_path, model):
    training = train.new_training(model, lr=1e-3, ema=0.9)
    train.train_one_epoch(training, [photographs(2)], recon, constant(1e-3))
    training.best_loss = 0.25
    train.save_checkpoint(tmp_path / "last.pth", training, loss=0.5)
    expected = torch.rand(3), np.random.rand(3)
    again = train.new_training(fuse_model(weights=tmp_path / "last.pth"), lr=1e-3, ema=0.9)
    train.resume_training(tmp_path / "last.pth", again)
    assert (again.epoch, again.step, again.best_loss) == (1, 1, 0.25)
    for a, b in ((training.model, again.model), (training.average, again.average)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert torch.equal(torch.rand(3), expected[0]) and np.array_equal(np.random.rand(3), expected[1])
    assert len(again.optimizer.state_dict()["state"]) == len(list(model.parameters()))


def test_weights_to_ship_hold_no_run(tmp_path, model):
    settings = {"objective": "recon", "seed": 0, "git": "abc", "torch": "2", "image_path": "not shipped"}
    train.save_weights(tmp_path / "best.pth", train.new_training(model, 1e-3), settings)
    content = torch.load(tmp_path / "best.pth", weights_only=True)
    assert content.keys() == {"name", "arch", "model", "provenance"} and "image_path" not in content["provenance"]
    with pytest.raises(ValueError, match="no run to resume.*--weights"):
        train.resume_training(tmp_path / "best.pth", train.new_training(model, 1e-3))


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path, model, monkeypatch):
    training = train.new_training(model, 1e-3)
    train.save_checkpoint(tmp_path / "last.pth", training, loss=1.0)
    old = (tmp_path / "last.pth").read_bytes()

    def interrupted(content, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.save_checkpoint(tmp_path / "last.pth", training, loss=0.5)
    assert (tmp_path / "last.pth").read_bytes() == old and len(list(tmp_path.iterdir())) == 1


class Average(torch.nn.Module):
    """The plain average of the exposures, in place of a network."""

    halo = 0

    def __init__(self, channels=1):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.arch = Architecture(image_channels=channels)

    def forward(self, exposures):
        return exposures.mean(1)


def test_validation_of_pairs_shows_and_scores_the_fusion():
    y = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    pairs = [("same", [y, y], [y, y, y]), ("other", [y // 2, y // 2 + 127], [y])]
    scores, pictures = train.validate_pairs(Average(), pairs, MEFLoss(), shown=1)
    assert list(pictures) == ["validation/same"] and pictures["validation/same"].shape == (64, 240, 3)
    assert scores["mef_ssim"] == pytest.approx((1 + scores["mef_ssim_worst"]) / 2, abs=1e-3)
    assert 0 < scores["mef_ssim_lum"] <= 1 and math.isfinite(scores["loss"])


def test_validation_of_photographs_scores_the_reconstruction():
    y = torch.rand(3, 1, 3, 32, 32)
    scores, pictures = train.validate_recon(Average(3), [Sample(y, y[:, :0], torch.ones(3))])
    assert scores == pytest.approx({"loss": 0, "ssim": 1}, abs=1e-5)
    assert pictures["reconstruction"].shape == (64, 96, 3)
    assert (pictures["reconstruction"][:32] == pictures["reconstruction"][32:]).all()
