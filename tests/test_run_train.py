"""run_train.py as the user starts it: runs, resumed runs, and what goes wrong."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import run_train
from configs import ROOT, get_infer_args, get_train_args
from utils.fusing.fusion import Fuser
from utils.pictures.pixels import CAPTION
from utils.training.loss import MEFLoss, ReconLoss


@pytest.fixture(autouse=True)
def no_sample(monkeypatch):
    """Skips fusing the sample pair, which is slow with the paper's network and has a test of its own."""
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
    common = f"--device cpu --runs_path {runs} --no-output"
    if "--resume_path" not in arguments:
        common += " --crop_size 44 --train_num 6 --batch_size 2"
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
    for part in (
        "batch_size: 2", "18,817 parameters", "on 4 photographs, validated on 1 others", "3 steps of 2 samples",
        "tensorboard --logdir", "Finished Training", "best loss", f"run_infer.py UNDER OVER --weights {folder}",
    ):  # fmt: skip
        assert part in shown.out
    for part in ("Scanning", "Epoch [1/2]", "learning_rate", "loss"):
        assert part in shown.err
    assert folder.name.startswith("train_") and list((folder / "logs").iterdir())
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["model"] == "DeepFuse_3x3" and settings["lr"] == 1e-4 and "git" in settings
    last = checkpoint(folder)
    best = f"epoch{last['epoch']:03}-loss{last['best_loss']:.3f}.pth"
    assert last["epoch"] == 2 and (folder / "checkpoints" / best).is_file()
    assert checkpoint(folder, "best.pth").keys() == {"version", "name", "arch", "model", "provenance"}


@pytest.mark.long
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
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    pair = [cv2.imread(str(photographs / name)) for name in ("0.jpg", "4.jpg")]
    monkeypatch.setattr(run_train, "sample_pair", lambda: pair)
    monkeypatch.setattr(run_train, "LOG_EVERY", 2)
    folder = run(tmp_path, "--image_path", photographs, "--num_epochs", 2, "--model", "DeepFuse_3x3")
    events = event_accumulator.EventAccumulator(str(folder / "logs")).Reload()
    tags = events.Tags()
    trained = {"train/loss", "train/learning_rate", "train/images_per_second", "train/epoch"}
    assert set(tags["scalars"]) == trained | {"validation/loss", "validation/ssim"}
    assert [event.step for event in events.Scalars("validation/ssim")] == [3, 6]  # steps
    assert [event.step for event in events.Scalars("train/loss")] == [2, 3, 4, 6]  # every second, and after an epoch
    start = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    settings = start.session_start_info.hparams
    assert [settings[name].string_value for name in ("objective", "model")] == ["recon", "DeepFuse_3x3"]
    assert settings["lr"].number_value == 1e-4
    table = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/experiment"]).experiment
    assert [metric.name.tag for metric in table.metric_infos] == ["validation/ssim"]  # no loss: objectives differ in it
    assert [setting.name for setting in table.hparam_infos[:3]] == ["objective", "model", "lr"]
    assert set(tags["images"]) == {"reconstruction", "sample pair"}
    encoded = np.frombuffer(events.Images("sample pair")[-1].encoded_image_string, np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    fused = Fuser.from_checkpoint(folder / "checkpoints" / "last.pth").fuse(pair)
    assert np.array_equal(picture[CAPTION:], np.hstack([*pair, fused]))  # true colours, and what the user would get


def test_validation_when_due_and_on_given_pairs(tmp_path, scenes):
    table = tmp_path / "pairs.csv"
    table.write_text("scene,under,over\na,0.png,2.png\nb,0.png,1.png\n")
    folder = run(
        tmp_path, "--image_path", scenes, "--objective", "mef", "--val_path", scenes, "--val_pairs", table,
        "--val_every", 2, "--num_epochs", 3, "--model", "DeepFuse_3x3", "--lr_schedule", "cosine",
    )  # fmt: skip
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = events.EventAccumulator(str(folder / "logs")).Reload()
    assert [event.step for event in events.Scalars("train/epoch")] == [3, 6, 9]
    assert [event.step for event in events.Scalars("validation/mef_ssim")] == [6, 9]


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
        ("--image_path", tmp_path / "nowhere"): "nowhere: no such folder: give --image_path FOLDER",
        ("--image_path", photographs, "--val_path", scenes): "--val_path: for objective mef alone",
        ("--image_path", photographs, "--photo_path", photographs): "--photo_path: for objective mef alone",
        ("--image_path", photographs, "--objective", "style"): "no objective is called 'style'",
        ("--image_path", photographs, "--run_name", folder.name): "is there already",
        ("--image_path", photographs, "--run_name", "a/b"): "--run_name is 'a/b'",
        (
            "--image_path",
            scenes,
            "--objective",
            "mef",
            "--photo_path",
            tmp_path / "nowhere",
        ): "give --photo_path FOLDER",
        ("--image_path", scenes, "--objective", "mef", "--crop_size", 43): "--crop_size is 43",
        ("--image_path", photographs, "--model", "DeepFuse_9"): "no model is called",
        ("--image_path", photographs, "--device", "cuda:77"): "cuda:77",
        ("--image_path", photographs, "--device", "toaster"): "toaster",
        ("--image_path", photographs, "--objective", "mef"): "no scene in|found 1 to train on",
        ("--image_path", scenes, "--objective", "mef", "--no-gray"): "--gray",
        ("--resume_path", last): "finished epoch 1: expected a larger --num_epochs",
        ("--resume_path", folder / "checkpoints" / "best.pth", "--num_epochs", 3): "--weights",
        ("--resume_path", tmp_path / "nowhere.pth"): "settings.json is missing",
        ("--resume_path", folder, "--num_epochs", 3, "--objective", "exposure"): "--objective of the run is recon",
        ("--resume_path", folder, "--num_epochs", 3, "--weights", last): "--weights of the run is None",
        ("--resume_path", folder, "--num_epochs", 3, "--batch_size", 3): "--batch_size of the run is 2",
        ("--resume_path", folder, "--num_epochs", 3, "--model", "DeepFuse"): "expected a DeepFuse",
    }
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    for arguments, message in cases.items():
        with pytest.raises((ValueError, OSError), match=message):
            run(tmp_path, *arguments)
    assert before == {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "options",
    ["--crop_size 4", "--val_fraction 1", "--clip_grad -1", "--lr nan", "--scale_weights 0 0", "--val_pairs x"],
)
def test_wrong_usage_has_one_exit_status(capsys, options):
    with pytest.raises(SystemExit) as stop:
        get_train_args(options.split())
    assert stop.value.code == 2 and options.split()[0] in capsys.readouterr().err.splitlines()[-1]


def test_best_is_the_epoch_of_the_lowest_validation_loss(tmp_path, photographs, monkeypatch):
    recon, losses = run_train.OBJECTIVES["recon"], iter([3.0, 1.0, 2.0, 1.5])
    told = dataclasses.replace(recon, validate=lambda *_: ({"loss": next(losses)}, {}))
    monkeypatch.setitem(run_train.OBJECTIVES, "recon", told)
    folder = run(tmp_path, "--image_path", photographs, "--num_epochs", 4, "--model", "DeepFuse_3x3")
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["best.pth", "epoch001-loss3.000.pth", "epoch002-loss1.000.pth", "last.pth"]
    best = checkpoint(folder, "best.pth")
    assert (best["provenance"]["epoch"], best["provenance"]["loss"], checkpoint(folder)["best_loss"]) == (2, 1, 1)
    assert same(best["model"], checkpoint(folder, names[2])["model"])


def at_step(monkeypatch, number, act):
    """Replaces the loss at one step of the run by act(loss)."""
    steps, recon = [], run_train.OBJECTIVES["recon"]

    class Acting(ReconLoss):
        def parts(self, *pictures):
            steps.append(1)
            found = super().parts(*pictures)
            return {"ssim": act(found["ssim"])} if len(steps) == number else found

    monkeypatch.setitem(run_train.OBJECTIVES, "recon", dataclasses.replace(recon, loss=lambda args: Acting()))


@pytest.mark.long
@pytest.mark.parametrize("step", [1, 5, 6])  # in the first epoch, in the middle of one, at its end
def test_signals_finish_the_step_and_resumed_runs_are_as_unbroken_ones(
    tmp_path, photographs, monkeypatch, capsys, step
):
    common = ["--image_path", photographs, "--num_epochs", 3, "--model", "DeepFuse_3x3", "--output", "--ema", 0.9]
    unbroken = run(tmp_path, *common)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda loss: signal.raise_signal(signal.SIGTERM) or loss)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *common)
    folder = Path(capsys.readouterr().out.split("--resume_path ")[1].strip())
    assert checkpoint(folder)["step"] == step
    run(tmp_path, "--resume_path", folder)
    assert same(checkpoint(unbroken), checkpoint(folder))
    names = [sorted(path.name for path in (one / "checkpoints").iterdir()) for one in (unbroken, folder)]
    assert names[0] == names[1]


@pytest.mark.long
def test_sigterm_ends_the_workers_too(tmp_path, photographs):
    options = f"--image_path {photographs} --model DeepFuse_3x3 --crop_size 32 --train_num 4 --batch_size 2"
    options += f" --num_epochs 10000 --num_workers 2 --save_every 0 --device cpu --runs_path {tmp_path} --run_name run"
    command = [sys.executable, ROOT / "run_train.py", *options.split()]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run/checkpoints/last.pth").exists() and process.poll() is None:
        time.sleep(0.1)
    process.terminate()
    out, err = process.communicate(timeout=60)  # the pipes end when nobody holds them any more, no worker either
    assert process.returncode == 128 + signal.SIGTERM and err.splitlines()[-1] == "interrupted"
    assert out.splitlines()[-1] == f"Go on with: python run_train.py --resume_path {tmp_path / 'run'}"
    assert checkpoint(tmp_path / "run")["step"] >= 1


@pytest.mark.long
def test_a_killed_run_goes_on_from_the_last_minutes(tmp_path, photographs, monkeypatch):
    def killed(loss):
        raise MemoryError  # nothing in the run catches it, as nothing catches SIGKILL

    common = ["--image_path", photographs, "--num_epochs", 2, "--model", "DeepFuse_3x3", "--save_every", 0]
    unbroken = run(tmp_path, *common)
    with monkeypatch.context() as patch:
        at_step(patch, 5, killed)
        with pytest.raises(MemoryError):
            run(tmp_path, *common, "--run_name", "killed")
    folder = tmp_path / "runs" / "killed"
    assert (checkpoint(folder)["epoch"], checkpoint(folder)["batch"]) == (1, 1)
    run(tmp_path, "--resume_path", folder)
    assert same(checkpoint(unbroken), checkpoint(folder))
    history = json.loads((folder / "settings.json").read_text())["resumed"]
    assert [(entry["epoch"], entry["batch"]) for entry in history] == [(1, 1)]


def test_a_validation_that_was_stopped_is_made_up_for(tmp_path, photographs, monkeypatch):
    recon = run_train.OBJECTIVES["recon"]
    validated = []

    def stopped(*args, **kwargs):
        validated.append(1)
        if len(validated) == 2:
            raise KeyboardInterrupt
        return recon.validate(*args, **kwargs)

    common = ["--image_path", photographs, "--num_epochs", 2, "--model", "DeepFuse_3x3"]
    unbroken = run(tmp_path, *common)
    with monkeypatch.context() as patch:
        patch.setitem(run_train.OBJECTIVES, "recon", dataclasses.replace(recon, validate=stopped))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *common, "--run_name", "stopped")
    folder = tmp_path / "runs" / "stopped"
    assert (checkpoint(folder)["epoch"], checkpoint(folder)["validated"]) == (2, 1)
    run(tmp_path, "--resume_path", folder)
    assert same(checkpoint(unbroken), checkpoint(folder))
    assert same(checkpoint(unbroken, "best.pth"), checkpoint(folder, "best.pth"))


def test_a_loss_that_is_not_finite_leaves_the_state_before_it(tmp_path, photographs, monkeypatch):
    at_step(monkeypatch, 5, lambda loss: loss * torch.nan)
    with pytest.raises(FloatingPointError, match=r"epoch 2, step 2.*photographs.*\.jpg: lower --lr"):
        run(tmp_path, "--image_path", photographs, "--model", "DeepFuse_3x3", "--run_name", "nan")
    last = checkpoint(tmp_path / "runs" / "nan")
    assert (last["epoch"], last["batch"], last["step"]) == (1, 1, 4)
    assert all(weight.isfinite().all() for weight in last["model"].values())


@pytest.mark.parametrize(
    "damage", ["no json", "[]", "[" * 200_000, '{"num_epochs": "three"}', '{"image_path": null}', '{"image_path": [1]}']
)
def test_damaged_settings_are_one_clear_line(tmp_path, damage):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "settings.json").write_text(damage)
    with pytest.raises(ValueError, match="settings.json is damaged"):
        get_train_args(["--resume_path", str(tmp_path)])


STRICT = sys.version_info < (3, 12)  # newer ones read files of options as names of files, which may be any bytes


@pytest.mark.parametrize(
    "read, content, said",
    [
        (get_train_args, b"@{}\n", "names itself"),
        (get_train_args, b"--lr \xff\n", "UTF-8" if STRICT else "invalid float value"),
        (get_train_args, b"--run_name 'a\n", "quotation"),
        (get_infer_args, b"@{}\n", "names itself"),
        *([(get_infer_args, b"\xff\n", "UTF-8")] if STRICT else []),
        (get_train_args, b"--learning_speed 1\n", "unrecognized arguments: --learning_speed 1"),
        (get_train_args, b"--lr fast\n", "argument --lr: invalid float value: 'fast'"),
    ],
)
def test_files_of_options_that_cannot_be_read_are_one_line(tmp_path, capsys, read, content, said):
    path = tmp_path / "a.args"
    path.write_bytes(content.replace(b"{}", str(path).encode()))
    for recipe, what in ((path, said), (tmp_path / "nothing.args", "nothing.args")):
        with pytest.raises(SystemExit) as stop:
            read([f"@{recipe}"])
        line = capsys.readouterr().err
        assert stop.value.code == 2 and what in line and line.count("\n") == 1


def test_best_starts_anew_where_losses_do_not_compare(tmp_path, photographs):
    folder = run(tmp_path, "--image_path", photographs, "--num_epochs", 1, "--model", "DeepFuse_3x3")
    path = folder / "checkpoints" / "last.pth"
    torch.save(checkpoint(folder) | {"best_loss": -1.0}, path)  # nothing could be better
    with pytest.warns(UserWarning, match="val_fraction changed.*best starts anew"):
        run(tmp_path, "--resume_path", path, "--num_epochs", 2, "--val_fraction", 0.4)
    assert checkpoint(folder)["best_loss"] > 0 and checkpoint(folder, "best.pth")["provenance"]["epoch"] == 2
    changed = json.loads((folder / "settings.json").read_text())["resumed"][0]["changed"]
    assert changed["val_fraction"] == [0.1, 0.4] and changed["num_epochs"] == [1, 2]


@pytest.mark.parametrize("hidden", [True, False])
def test_what_was_not_shown_in_training_is_not_shown_when_fusing(tmp_path, scenes, hidden):
    switch = "--hidden" if hidden else "--no-hidden"
    options = ["--image_path", scenes, "--objective", "mef", "--num_epochs", 1, "--train_num", 2, switch]
    folder = run(tmp_path, *options)
    assert checkpoint(folder, "best.pth")["arch"]["exposures"] == (5 if hidden else 0)
    args = get_train_args([*map(str, options), "--crop_size", "64"])
    objective = run_train.objective_of(args)
    samples, *_ = objective.data(args, run_train.network(args, objective), print)
    most = max(len(samples[(0, seed, seed)].exposures) for seed in range(20))
    assert (most > 3) == hidden  # virtual ones beside the scene's three


def test_settings_from_a_file(tmp_path):
    (tmp_path / "some.args").write_text("# why\n--lr 0.5 --image_path 'a b' c\n--amp\n")
    args = get_train_args([f"@{tmp_path / 'some.args'}", "--lr", "0.25"])
    assert (args.lr, args.image_path, args.amp) == (0.25, ["a b", "c"], True)
    for preset, hidden in {"photo": True, "mef": False}.items():
        args = get_train_args([f"@{ROOT}/runs/pretrained/{preset}.args"])
        assert args.objective == "mef" and args.hidden == hidden


@pytest.mark.long
def test_two_processes_have_the_loss_curve_of_one(tmp_path, photographs, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(run_train, "LOG_EVERY", 1)
    common = ["--image_path", photographs, "--num_epochs", 2, "--model", "DeepFuse_3x3", "--lr", 1e-3, "--ema", 0.9]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    # not forked: where a test before has computed gradients in threads, a fork cannot
    code = "import sys, pathlib; sys.path.insert(0, 'tests'); import run_train, test_run_train as tests; "
    code += "run_train.LOG_EVERY, run_train.sample_pair = 1, list; tests.run(pathlib.Path(sys.argv[1]), *sys.argv[2:])"
    arguments = [sys.executable, "-c", code, tmp_path, *common, "--run_name", "two"]
    one_of_two = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen([*map(str, arguments)], cwd=ROOT, env=one_of_two | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]
    run(tmp_path, *common, "--run_name", "one")
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    curves = []
    for name in ("one", "two"):
        events = event_accumulator.EventAccumulator(str(tmp_path / "runs" / name / "logs")).Reload()
        curves += [[event.value for tag in ("train/loss", "validation/loss") for event in events.Scalars(tag)]]
    assert len(curves[0]) == 8 and curves[0] == pytest.approx(curves[1], abs=1e-5)
    one, two = (checkpoint(tmp_path / "runs" / name) for name in ("one", "two"))
    assert one["step"] == two["step"] == 6 and len(list((tmp_path / "runs").iterdir())) == 2
    for key, weight in one["model"].items():
        torch.testing.assert_close(weight, two["model"][key], atol=1e-4, rtol=0)


def test_help_shows_true_defaults_and_switches(capsys):
    with pytest.raises(SystemExit):
        get_train_args(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "(default: 200)",
        "(default: 0.0001)",
        "--gray, --no-gray",
        "--verbose, --no-verbose, --output, --no-output",
    ):
        assert part in shown
    assert not any(get_train_args([option]).verbose for option in ("--no-output", "--no-verbose"))
    args = get_train_args([])
    assert (args.train_num, args.batch_size, args.num_epochs, args.lr, args.num_workers) == (200, 4, 100, 1e-4, 0)
    loss = MEFLoss()
    assert list(loss.scale_weights) == args.scale_weights
    assert (loss.lum_weight, loss.clip_weight) == (args.lum_weight, args.clip_weight)
