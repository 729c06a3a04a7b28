"""run_train.py as the user starts it: runs, resumed runs, and what goes wrong."""

import json

import cv2
import numpy as np
import pytest
import torch

import run_train
from configs import get_train_args
from utils import util_train as train
from utils.util_fusion import Fuser


@pytest.fixture(autouse=True)
def no_sample(monkeypatch):
    """The sample pair's fusion takes long with the paper's network: it has a test of its own."""
    monkeypatch.setattr(run_train, "sample_pair", list)


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(5):
        small = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.jpg"), cv2.resize(small, (80, 64), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture
def scenes(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        folder = tmp_path / "scenes" / name
        folder.mkdir(parents=True)
        small = rng.random((8, 10, 3)).astype(np.float32)
        y = np.clip(cv2.resize(small, (80, 64), interpolation=cv2.INTER_CUBIC), 0, 1)
        for i, gain in enumerate((0.3, 1, 3)):
            cv2.imwrite(str(folder / f"{i}.png"), np.clip(y * gain * 255, 0, 255))
    return tmp_path / "scenes"


def run(tmp_path, *arguments):
    """Returns the run folder."""
    runs = tmp_path / "runs"
    known = set(runs.glob("*"))
    common = f"--crop_size 32 --train_num 6 --batch_size 2 --device cpu --runs_path {runs} --no-output"
    run_train.main(get_train_args([*common.split(), *map(str, arguments)]))
    new = set(runs.glob("*")) - known
    return new.pop() if new else None


def checkpoint(folder, name="last.pth"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


def test_a_run_leaves_what_it_promises(tmp_path, photographs, capsys):
    folder = run(tmp_path, "--image_path", photographs, "--num_epochs", 2, "--model", "DeepFuse_3x3", "--output")
    shown = capsys.readouterr()
    for part in ("batch_size: 2", "tensorboard --logdir", "Finished Training", "best loss"):
        assert part in shown.out
    for part in ("Scanning", "Epoch [1/2]", "learning_rate", "loss"):
        assert part in shown.err
    assert folder.name.startswith("train_") and list((folder / "logs").iterdir())
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["model"] == "DeepFuse_3x3" and settings["lr"] == 1e-4 and "git" in settings
    last = checkpoint(folder)
    best = f"epoch{last['epoch']:03}-loss{last['best_loss']:.3f}.pth"
    assert last["epoch"] == 2 and (folder / "checkpoints" / best).is_file()
    assert checkpoint(folder, "best.pth").keys() == {"name", "arch", "model", "provenance"}


@pytest.mark.parametrize("objective", ["recon", "mef", "exposure"])
def test_two_and_two_epochs_are_four(tmp_path, photographs, scenes, objective):
    data = [scenes, "--photo_path", photographs] if objective == "mef" else [photographs]
    common = ["--image_path", *data, "--objective", objective, "--lr", 1e-3, "--ema", 0.9]
    four = run(tmp_path, *common, "--num_epochs", 4)
    assert checkpoint(four)["name"] == ("DeepFuse" if objective == "recon" else "DeepFuse_pyramid")
    two = run(tmp_path, *common, "--num_epochs", 2)
    assert not same(checkpoint(four), checkpoint(two))
    resumed = run(tmp_path, "--resume_path", two / "checkpoints" / "last.pth", "--num_epochs", 4)
    assert resumed is None  # it went on in its own folder, with its own settings
    assert same(checkpoint(four), checkpoint(two))
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (four, two)]
    assert names[0] == names[1]


def test_tensorboard_holds_scores_and_pictures(tmp_path, photographs, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pair = [cv2.imread(str(photographs / name)) for name in ("0.jpg", "4.jpg")]
    monkeypatch.setattr(run_train, "sample_pair", lambda: pair)
    folder = run(tmp_path, "--image_path", photographs, "--num_epochs", 2, "--model", "DeepFuse_3x3")
    events = event_accumulator.EventAccumulator(str(folder / "logs")).Reload()
    tags = events.Tags()
    scalars = {"train/loss", "train/learning_rate", "train/images_per_second", "validation/loss", "validation/ssim"}
    assert set(tags["scalars"]) == scalars
    assert [event.step for event in events.Scalars("validation/ssim")] == [1, 2]
    assert set(tags["images"]) == {"reconstruction", "sample pair"}
    encoded = np.frombuffer(events.Images("sample pair")[-1].encoded_image_string, np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    fused = Fuser.from_checkpoint(folder / "checkpoints" / "last.pth").fuse(pair)
    assert np.array_equal(picture, np.hstack([*pair, fused]))  # true colours, and what the user would get


def test_validation_when_due_and_on_given_pairs(tmp_path, scenes):
    table = tmp_path / "pairs.csv"
    table.write_text("scene,under,over\na,0.png,2.png\nb,0.png,1.png\n")
    folder = run(
        tmp_path, "--image_path", scenes, "--objective", "mef", "--val_path", scenes, "--val_pairs", table,
        "--val_every", 2, "--num_epochs", 3, "--model", "DeepFuse_3x3", "--lr_schedule", "cosine",
    )  # fmt: skip
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = events.EventAccumulator(str(folder / "logs")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("validation/mef_ssim")] == [2, 3]


def test_weights_start_a_new_run_and_rgb_networks_train(tmp_path, photographs):
    first = run(tmp_path, "--image_path", photographs, "--num_epochs", 1, "--model", "DeepFuse_3x3", "--no-gray")
    best = first / "checkpoints" / "best.pth"
    second = run(tmp_path, "--image_path", photographs, "--num_epochs", 1, "--weights", best, "--no-gray", "--lr", 0)
    assert checkpoint(second)["epoch"] == 1 and checkpoint(second)["arch"]["image_channels"] == 3
    assert same(checkpoint(first, "best.pth")["model"], checkpoint(second, "best.pth")["model"])
    with pytest.raises(ValueError, match="--no-gray"):
        run(tmp_path, "--image_path", photographs, "--weights", best)


def test_bad_settings_are_one_clear_line(tmp_path, photographs, scenes):
    folder = run(tmp_path, "--image_path", photographs, "--num_epochs", 1, "--model", "DeepFuse_3x3")
    last = folder / "checkpoints" / "last.pth"
    cases = {
        ("--image_path", tmp_path / "nowhere"): "nowhere",
        ("--image_path", photographs, "--crop_size", 4): "--crop_size is 4",
        ("--image_path", photographs, "--val_fraction", 1): "--val_fraction is 1",
        ("--image_path", photographs, "--clip_grad", -1): "--clip_grad is -1",
        ("--image_path", photographs, "--lr", "nan"): "--lr is nan",
        ("--image_path", photographs, "--val_path", scenes): "--val_path and --photo_path are for objective mef",
        ("--image_path", photographs, "--photo_path", photographs): "--val_path and --photo_path are for objective mef",
        ("--image_path", scenes, "--objective", "mef", "--photo_path", tmp_path / "nowhere"): "nowhere",
        ("--image_path", scenes, "--objective", "mef", "--crop_size", 31): "--crop_size is 31",
        ("--image_path", scenes, "--objective", "mef", "--val_pairs", "x.csv"): "--val_pairs",
        ("--image_path", photographs, "--model", "DeepFuse_9"): "no model is called",
        ("--image_path", photographs, "--device", "cuda:77"): "cuda:77",
        ("--image_path", photographs, "--device", "toaster"): "toaster",
        ("--image_path", photographs, "--objective", "mef"): "no scene in|found 1 to train on",
        ("--image_path", scenes, "--objective", "mef", "--no-gray"): "--gray",
        ("--resume_path", last): "finished epoch 1: expected a larger --num_epochs",
        ("--resume_path", folder / "checkpoints" / "best.pth", "--num_epochs", 3): "--weights",
        ("--resume_path", tmp_path / "nowhere.pth"): "nowhere.pth",
    }
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    for arguments, message in cases.items():
        with pytest.raises((ValueError, OSError), match=message):
            run(tmp_path, *arguments)
    assert before == {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}


def test_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path, photographs, monkeypatch, capsys):
    common = ["--image_path", photographs, "--num_epochs", 3, "--model", "DeepFuse_3x3", "--output"]
    unbroken = run(tmp_path, *common)
    steps = []

    def interrupted(*args, **kwargs):
        steps.append(1)
        if len(steps) == 5:  # in the middle of epoch 2
            raise KeyboardInterrupt
        return train.recon_losses(*args, **kwargs)

    monkeypatch.setitem(train.OBJECTIVES, "recon", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *common)
    monkeypatch.undo()
    resume = capsys.readouterr().out.split("--resume_path ")[1].strip()
    assert torch.load(resume, weights_only=True)["epoch"] == 1
    monkeypatch.setattr(run_train, "sample_pair", list)
    run(tmp_path, "--resume_path", resume)
    assert same(checkpoint(unbroken), torch.load(resume, weights_only=True))


def test_help_shows_true_defaults_and_switches(capsys):
    with pytest.raises(SystemExit):
        get_train_args(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("(default: 200)", "(default: 0.0001)", "--gray, --no-gray", "--output, --no-output"):
        assert part in shown
    args = get_train_args([])
    assert (args.train_num, args.batch_size, args.num_epochs, args.lr, args.num_workers) == (200, 4, 100, 1e-4, 0)
