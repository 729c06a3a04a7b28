"""What the house asks of each network: one that is added to NETWORKS is checked by its entry alone."""

import numpy as np
import pytest
import torch
from conftest import strong
from torch import nn

from models import NETWORKS, Network, WeightsError, fuse_model
from models.DeepFuse import Architecture
from utils.fusing.tiles import AUTHORS_CLIPPED, TiledNetwork, on_device
from utils.pictures.pixels import luma

KINDS = [(name, channels) for name in NETWORKS for channels in (1, 3)]
SIZES = [(1, 1), (1, 40), (7, 5), (65, 64)]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def model(request, device):
    """Each network with random weights, for luminance and, if it takes that, for RGB."""
    name, channels = request.param
    try:
        return strong(fuse_model(name, image_channels=channels)).to(device)
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture
def exposures(model, device):
    """Two scenes of three exposures each, as the network takes them."""
    torch.manual_seed(0)
    return torch.rand(2, 3, model.arch.image_channels, 37, 50).to(device)


def outputs(model, exposures):
    """Returns the picture; and the weights that come with it where the network decides on a small copy, else None."""
    out = model(exposures)
    return out if model.halo is None else (out, None)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1, expected.abs().max().item()), rtol=0)


@torch.inference_mode()
def test_a_batch_gives_what_its_scenes_give_alone(model, exposures):
    for together, *alone in zip(*(outputs(model, x) for x in (exposures, exposures[:1], exposures[1:])), strict=True):
        if together is not None:
            assert_close(together, torch.cat(alone))
    assert outputs(model, exposures)[0].std() > 1e-3  # such a network tells pixels apart


@torch.inference_mode()
@pytest.mark.parametrize("order", [[2, 1, 0], [1, 2, 0]])
def test_the_order_of_the_exposures_does_not_matter(model, exposures, order):
    (fused, weights), (other, turned) = outputs(model, exposures), outputs(model, exposures[:, order])
    assert_close(other, fused)
    if weights is not None:
        assert_close(turned, weights[:, order])


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [2, 5])
def test_any_size_and_number_works(model, device, size, count):
    fused, weights = outputs(model, torch.rand(1, count, model.arch.image_channels, *size).to(device))
    assert fused.shape == (1, model.arch.image_channels, *size) and fused.isfinite().all()
    if weights is not None:
        assert weights.shape == (1, count, *size)
        assert_close(weights.exp().sum(1), torch.ones_like(fused[:, 0]))


def test_the_halo_is_as_wide_as_an_output_pixel_looks(model, device):
    if model.halo is None:
        pytest.skip("decides on a small copy: no tiles")
    side = 2 * model.halo + 9
    shown = torch.rand(1, 2, model.arch.image_channels, side, side).to(device).requires_grad_()
    model(shown)[0, :, side // 2, side // 2].sum().backward()
    rows, columns = shown.grad.abs().sum((0, 1, 2)).nonzero().T
    reach = max(int((at - side // 2).abs().max()) for at in (rows, columns))
    assert reach == model.halo, (
        f"halo of {model.name} is {model.halo}, but an output pixel depends on {reach} around it"
    )


@torch.inference_mode()
@pytest.mark.parametrize("size", [(47, 75), (40, 1), (1, 1)])
def test_tiles_equal_the_whole(model, device, stack, size):
    if model.halo is None:
        pytest.skip("decides on a small copy: no tiles")
    shots, channels = stack(3, (*size, 3), np.uint16), model.arch.image_channels
    fused = torch.empty(channels, *size)
    network = TiledNetwork(model)
    network.tile = 36
    for box, y_hat in network._tiles(shots, *size):
        fused[(..., *box)] = y_hat[0]
    if channels == 1:
        y = torch.from_numpy(np.stack([luma(x) for x in shots]))[None, :, None].to(device)
    else:
        y = torch.from_numpy(np.stack([x[..., ::-1].transpose(2, 0, 1) / np.float32(65535) for x in shots]))[None]
        y = y.to(device)
    if getattr(model.arch, "studio", False):
        y = (16 + 219 * y) / 255
    expected = model(y)[0].cpu()
    if getattr(model.arch, "stretched", False):
        low, high = np.quantile(expected.numpy(), [AUTHORS_CLIPPED, 1 - AUTHORS_CLIPPED])
        if low == high:
            return  # a single pixel
        expected = (expected - low) / (high - low)
    assert_close(fused, expected)


def test_training_reaches_every_parameter(model, device):
    exposures = torch.rand(1, 3, model.arch.image_channels, 64, 64).to(device)
    model.train().fuse(exposures).square().mean().backward()
    for name, weight in model.named_parameters():
        grad = weight.grad
        assert grad is not None and grad.isfinite().all() and grad.abs().max() > 0, f"{name} is not trained"


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, (kind, arch) in NETWORKS.items() if kind(arch).halo is None])
def test_one_that_decides_small_is_exported(tmp_path, name):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    pytest.importorskip("onnxscript", reason="needs PyTorch's exporter: pip install onnxscript")
    from run_export import export
    from utils.fusing.onnx import OnnxNetwork

    model = strong(fuse_model(name))
    export(model, str(tmp_path / "net.onnx"))
    onnx, network = OnnxNetwork(tmp_path / "net.onnx"), on_device(model)
    for count, size in ((2, (40, 50)), (5, (33, 64))):
        exposures = np.random.default_rng(0).random((count, *size), np.float32)
        for found, expected in zip(onnx.decide(exposures), network.decide(exposures), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


# What a network lacks is said


class Incomplete(Network):
    """Returns the first exposure; each kind of it below lacks one thing."""

    halo = 0

    def __init__(self, arch):
        super().__init__()
        self.arch = arch

    def forward(self, exposures):
        return exposures[:, 0]


class Stranger(nn.Module):
    def __init__(self, arch):
        super().__init__()


class Nameless(Incomplete):
    def __init__(self, arch):
        nn.Module.__init__(self)


class Small(Incomplete):
    halo = None


class Both(Incomplete):
    def forward(self, exposures):
        return exposures[:, 0], exposures[:, :, 0]


class Flat(Incomplete):
    def forward(self, exposures):
        return exposures[:, 0, 0]


@pytest.mark.parametrize(
    ("kind", "arch", "said"),
    [
        (Stranger, Architecture(), "is no Network"),
        (Nameless, Architecture(), "has no `arch`, a frozen dataclass .*: set self.arch = arch"),
        (Incomplete, {"image_channels": 1}, "has no `arch`, a frozen dataclass"),
        (Small, Architecture(), "has no decision_pixels and exposures in its arch"),
    ],
)
def test_what_a_network_lacks_is_said_when_it_is_made(monkeypatch, kind, arch, said):
    monkeypatch.setitem(NETWORKS, "mine", (kind, arch))
    with pytest.raises(WeightsError, match=f"the network mine {said}"):
        fuse_model("mine")


@pytest.mark.parametrize("kind", [Both, Flat, Small])
def test_an_output_of_another_form_is_said(kind):
    model = kind(Architecture())
    with pytest.raises(TypeError, match=rf"{kind.__name__}.forward must return .*\(2, 1, 8, 9\)"):
        model.fuse(torch.rand(2, 3, 1, 8, 9))
