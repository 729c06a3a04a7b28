"""Adding a network as CONTRIBUTING.md says: one class and one entry, then everything works."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import run_eval
import run_infer
import run_train
from configs import get_eval_args, get_infer_args, get_train_args
from models import NETWORKS, Network, fuse_model
from utils.fusing.tiles import on_device


@dataclass(frozen=True)
class SumNumbers:
    channels: int = 4
    image_channels: int = 1


class Sum(Network):
    """Works at full size: convolution, mean over the exposures, convolution."""

    halo = 1

    def __init__(self, arch: SumNumbers):
        super().__init__()
        self.arch = arch
        self.encoder = nn.Conv2d(arch.image_channels, arch.channels, 3, padding=1, padding_mode="replicate")
        self.decoder = nn.Conv2d(arch.channels, arch.image_channels, 1)

    def forward(self, exposures: torch.Tensor) -> torch.Tensor:
        features = self.encoder(exposures.flatten(0, 1)).unflatten(0, exposures.shape[:2])
        return self.decoder(features.mean(1))


@dataclass(frozen=True)
class ChoiceNumbers:
    decision_pixels: int = 3000
    exposures: int = 5
    image_channels: int = 1


class Choice(Network):
    """Decides on a small copy: a softmax of convolutions weighs the exposures."""

    def __init__(self, arch: ChoiceNumbers):
        super().__init__()
        self.arch = arch
        self.score = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, exposures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.score(exposures.flatten(0, 1)).unflatten(0, exposures.shape[:2])
        log_weights = torch.log_softmax(scores[:, :, 0], 1)
        return (log_weights.exp() * exposures[:, :, 0]).sum(1, keepdim=True), log_weights


@pytest.fixture
def scenes(tmp_path: Path, stack) -> Path:
    for name in "abc":
        (tmp_path / "scenes" / name).mkdir(parents=True)
        for i, shot in enumerate(stack(3)):
            cv2.imwrite(str(tmp_path / "scenes" / name / f"{i}.png"), shot)
    return tmp_path / "scenes"


@pytest.mark.parametrize("entry", [(Sum, SumNumbers()), (Choice, ChoiceNumbers())])
def test_one_class_and_one_entry_are_enough(tmp_path, scenes, monkeypatch, entry):
    monkeypatch.setitem(NETWORKS, "mine", entry)
    monkeypatch.chdir(tmp_path)
    options = (
        f"--model mine --objective mef --image_path {scenes} --crop_size 44 --train_num 4 --num_epochs 2 --lr 1e-2"
    )
    run_train.main(get_train_args([*options.split(), "--run_name", "mine"]))
    weights = "runs/mine/checkpoints/best.pth"
    model = fuse_model(weights=weights)
    assert type(model) is entry[0] and model.arch == entry[1]
    run_train.main(get_train_args(["--resume_path", "runs/mine", "--num_epochs", "3"]))

    shots = [str(scenes / "a" / f"{i}.png") for i in range(3)]
    run_infer.main(get_infer_args([*shots, "--weights", weights, "-o", "fused.png"]))
    fused = on_device(fuse_model(weights=weights)).fuse([cv2.imread(path) for path in shots])
    np.testing.assert_array_equal(cv2.imread("fused.png"), fused)
    run_eval.main(get_eval_args(["--data", str(scenes), "--weights", f"mine={weights}", "--methods", "average"]))
    assert "| mine " in Path("data_result/eval/results.md").read_text()


def test_one_that_decides_small_is_exported(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    pytest.importorskip("onnxscript", reason="needs PyTorch's exporter: pip install onnxscript")
    from run_export import export
    from utils.fusing.onnx import OnnxNetwork

    monkeypatch.setitem(NETWORKS, "mine", (Choice, ChoiceNumbers()))
    model = fuse_model("mine")
    export(model, str(tmp_path / "mine.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "mine.onnx")
    axes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    assert axes == {name: ["shots", "height", "width"][name == "fused" :] for name in ("exposures", "fused", "weights")}
    onnx, network = OnnxNetwork(tmp_path / "mine.onnx"), on_device(model)
    for count, size in ((2, (40, 50)), (5, (33, 64))):
        exposures = np.random.default_rng(0).random((count, *size), np.float32)
        for ours, theirs in zip(onnx.decide(exposures), network.decide(exposures), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
