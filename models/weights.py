"""Files of weights: three kinds, told apart by their content, and checked before they cost time or memory.

They are this project's checkpoints, the DeepFuse authors' Theano archive (an .npz with arrays arr_0 ... arr_5), and the
predecessor's .pth (keys layer1, layer2, layer4, layer5, layer6).
"""

import dataclasses
import os
import pickletools
import re
import warnings
import zipfile
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .DeepFuse import ARCHITECTURES, DeepFuse
from .DeepFusePyramid import DeepFusePyramid, PyramidArchitecture
from .network import Network, lacking

# Name -> class and numbers. A new network needs this one entry; its numbers have bounds in BOUNDS.
NETWORKS: dict[str, tuple[type[Network], Any]] = {name: (DeepFuse, arch) for name, arch in ARCHITECTURES.items()}
NETWORKS["DeepFuse_pyramid"] = DeepFusePyramid, PyramidArchitecture()

scalar = np.float64().__reduce__()[0]  # the function by which NumPy's scalars are pickled: it has no public name
MAX_BYTES = 2**28  # of a file, packed or unpacked, and of a network; ours have up to 1.3 MB, a run's state 4 times that
BOUNDS = {  # least and most that an architecture's numbers may be; for several, each of them
    "channels": (1, 256),
    "fine_levels": (0, 12),
    "fine_channels": (1, 256),
    "fine_depth": (1, 16),
    "kernels": (1, 15),
    "depth": (1, 16),
    "halvings": (1, 12),
    "decision_pixels": (2**10, 2**26),
    "exposures": (0, 16),
    "slope": (0, 1),
    "image_channels": (1, 3),
}
MOST_LAYERS = 16  # the paper's networks have 5 or 6
# Python names that a .pth may contain: those of tensors, and of the NumPy number in the predecessor's files. PyTorch's
# reader also runs no code, but lets a few bytes allocate any amount of memory.
NAMES = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|numpy\._?core\.multiarray scalar|numpy dtype|_codecs encode"
)
MOST_STEPS = 2**16  # instructions in a pickle; a run's state has 10,000
MOST_TEXT = 2**12  # characters in a text of a pickle; a run's state has 100
LARGEST = 2**10  # of a weight, in amount; those of trained networks are below 31, garbage of 16 bits goes up to 65,504
CHOICES = {"padding": ("replicate", "zeros", "reflect", "circular"), "output": ("none", "leaky_relu", "sigmoid")}
PREDECESSOR_LAYERS = {  # its names -> ours; in a layer, 0 is the convolution and 1 the BatchNorm
    "layer1": "encoder.0",
    "layer2": "encoder.1",
    "layer4": "decoder.0",
    "layer5": "decoder.1",
    "layer6": "decoder.2",
}
NUMPY_SCALARS: list[Any] = [  # the objects of NAMES' NumPy numbers, for PyTorch's reader
    (scalar, "numpy.core.multiarray.scalar"),
    scalar,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int64")),
]

State = dict[str, torch.Tensor]


class WeightsError(ValueError):
    """A file of weights that cannot be used, or a network that does not exist."""


def build_network(name: str, arch: Any) -> Network:
    """Returns a freshly initialised network of NETWORKS with these numbers, in eval mode, with attribute `name`.

    Raises:
        ValueError: its class or its numbers lack what CONTRIBUTING.md asks for.
    """
    model = NETWORKS[name][0](arch)
    if lack := lacking(model):
        raise WeightsError(f"the network {name} {lack} (see CONTRIBUTING.md)")
    model.name = name
    return model.eval()


def fuse_model(
    name: str | None = None, weights: str | PathLike | None = None, image_channels: int | None = None
) -> Network:
    """Returns a network in eval mode on the CPU, with attribute `name`.

    Args:
        name: one of `NETWORKS`; None takes the name in the weights ("DeepFuse" without weights).
        weights: a file to load; None keeps the random initialisation.
        image_channels: 1 for luminance, 3 for RGB; None takes that of the weights (1 without weights).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name is unknown; the file is no checkpoint, is damaged or would run code; or its architecture or
            number of channels is not the one asked for.
    """
    if name is not None and name not in NETWORKS:
        raise WeightsError(f"no model is called {name!r}: expected one of {', '.join(NETWORKS)}")
    if weights is None:
        name = name or "DeepFuse"
        default = NETWORKS[name][1]
        _shapes(name, default)  # says what a new network lacks, and draws no random number
        try:  # a network is checked before its training as its file is after it; a pyramid for colour raises, too
            numbers = _architecture(default, vars(default) | {"image_channels": image_channels or 1})
            return build_network(name, numbers)
        except ValueError as error:
            raise WeightsError(str(error)) from error
    model = _read_network(weights)
    if name not in (None, model.name):
        raise WeightsError(f"{weights} holds a {model.name}, expected a {name}: ask for model {model.name}")
    channels = model.arch.image_channels
    if image_channels not in (None, channels):
        raise WeightsError(
            f"{weights} holds a network for {_kind(channels)} pictures, expected one for {_kind(image_channels)}: "
            f"use {'--gray' if channels == 1 else '--no-gray'}"
        )
    return model


def read_checkpoint(path: str | PathLike) -> dict:
    """Returns the dict that a .pth file holds, its tensors on the CPU; no code in the file is ever run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, too large, no checkpoint, damaged, or would run code.
    """
    _, pickles = _look_into(path)
    try:
        for content in pickles:
            _check_pickle(content)
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of odd pickle protocols in files that are refused anyway
            checkpoint = _plain(torch.load(path, map_location="cpu", weights_only=True), {})
    except PermissionError:
        raise
    except Exception as error:  # PyTorch raises exceptions of many kinds for damaged files
        # PyTorch's own words can be a hint to switch the protection off.
        reason = _first_line(error) if isinstance(error, WeightsError) else "PyTorch cannot read it as tensors alone"
        raise WeightsError(f"{path} is not a checkpoint, or it is damaged: {reason}") from error
    if not isinstance(checkpoint, dict) or not all(isinstance(key, str) for key in checkpoint):
        raise WeightsError(f"{path} holds a {type(checkpoint).__name__}, expected a checkpoint's dict")
    return checkpoint


def _check_pickle(content: bytes) -> None:
    """Raises WeightsError if a pickle names code, or holds more than a checkpoint does.

    What it holds twice counts twice: a tuple of two references to a tuple of two and so on, as a key of a dict, would
    be hashed for ever.
    """
    stack: list[int] = []  # of each object, how many it holds; -1 is a mark
    memo: dict[object, int] = {}
    for number, (step, argument, _) in enumerate(pickletools.genops(content)):
        if step.name == "GLOBAL" and not NAMES.fullmatch(str(argument)):
            raise WeightsError(f"holds Python code besides tensors, which is never run: {str(argument)[:80]}")
        size, taken = 1, len(step.stack_before)
        if pickletools.markobject in step.stack_before:
            while (one := stack.pop()) >= 0:
                size += one
            taken = step.stack_before.index(pickletools.markobject)
        size += sum(stack.pop() for _ in range(taken))
        if "GET" in step.name:
            size = memo[argument]
        elif "PUT" in step.name or step.name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = stack[-1]
        stack += [-1 if one is pickletools.markobject else size for one in step.stack_after]
        texts = len(argument) if isinstance(argument, str | bytes) else 0
        if number > MOST_STEPS or size > MOST_STEPS or texts > MOST_TEXT:
            raise WeightsError("holds too much besides tensors")


def _plain(content: object, made: dict[int, object]) -> object:
    """Returns dicts and tensors without the attributes that a file may set on them, such as another `items`."""
    if id(content) not in made:
        made[id(content)] = content
        if isinstance(content, torch.Tensor):
            made[id(content)] = torch.Tensor.detach(content)
        elif isinstance(content, dict):
            made[id(content)] = copy = {}
            for key, value in dict.items(content):
                copy[key] = _plain(value, made)
    return made[id(content)]


def _look_into(path: str | PathLike) -> tuple[list[str], list[bytes]]:
    """Returns the names of the entries of a .pth or .npz, which are .zip files, and the content of its pickles."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file of weights")
    if not os.path.isfile(path):
        raise WeightsError(f"{path} is a folder, a device or a pipe: expected a file of weights")
    size = os.path.getsize(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = max(size, sum(entry.file_size for entry in archive.infolist()))
            pickles = []
            if size <= MAX_BYTES:
                if damaged := archive.testzip():  # PyTorch does not check the checksums
                    raise zipfile.BadZipFile(damaged)
                pickles = [archive.read(entry) for entry in archive.infolist() if entry.filename.endswith(".pkl")]
            names = archive.namelist()
    except PermissionError:
        raise
    except Exception as error:  # zipfile raises exceptions of many kinds, too
        expected = "expected a .pth (of PyTorch 1.6 or newer) or an .npz of weights"
        raise WeightsError(f"{path} is not a checkpoint, or it is damaged: {expected}") from error
    if size > MAX_BYTES:
        raise WeightsError(f"{path} holds {size:,} bytes: expected weights of at most {MAX_BYTES:,}")
    return names, pickles


def _read_network(path: str | PathLike) -> Network:
    """Returns the network in a file of any of the three kinds."""
    entries, _ = _look_into(path)
    if entries and all(entry.endswith(".npy") for entry in entries):
        return _network(path, "DeepFuse_authors", {}, _authors_state(path))
    checkpoint = read_checkpoint(path)
    if {"name", "arch", "model"} <= checkpoint.keys():
        return _network(path, checkpoint["name"], checkpoint["arch"], checkpoint["model"])
    state = checkpoint["model"] if isinstance(checkpoint.get("model"), dict) else checkpoint
    if {str(key).split(".")[0] for key in state} == PREDECESSOR_LAYERS.keys():
        first = state.get("layer1.layer.0.weight")
        channels = first.shape[1] if isinstance(first, torch.Tensor) and first.ndim == 4 else 1
        for theirs, ours in PREDECESSOR_LAYERS.items():
            state = {str(key).replace(f"{theirs}.layer.", f"{ours}."): value for key, value in state.items()}
        return _network(path, "DeepFuse_bn", {"image_channels": channels}, state)
    found = ", ".join(_shown(key) for key in list(state)[:5])
    raise WeightsError(
        f"{path} is not a known kind of checkpoint: expected keys name, arch, model (this project) "
        f"or {', '.join(PREDECESSOR_LAYERS)} (the predecessor), found {found or 'none'}"
    )


def _network(path: str | PathLike, name: object, numbers: object, state: object) -> Network:
    """Returns the network `name` with the architecture `numbers` and weights `state`, all three unchecked from a file.

    Its memory is allocated only after the weights are known to fit.
    """
    if not isinstance(name, str) or name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise WeightsError(f"{path} holds an unknown network {_shown(name)}: expected {known}")
    try:
        arch = _architecture(NETWORKS[name][1], numbers)
        state = _checked_state(_shapes(name, arch), state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} does not fit the network {name}: {_first_line(error)}") from error
    model = build_network(name, arch)
    model.load_state_dict(state)
    return model


class _WithoutNormal(TorchFunctionMode):
    """Skips `normal_`: on the meta device PyTorch would import its compiler for it, 160 MB and a second."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function not in (torch.Tensor.normal_, nn.init.normal_):
            return function(*args, **(kwargs or {}))


def _shapes(name: str, arch: Any) -> State:
    """Returns the names and shapes of a network's weights, as tensors without memory."""
    with torch.device("meta"), _WithoutNormal():
        return build_network(name, arch).state_dict()


def _architecture(default: Any, numbers: object) -> Any:
    """Returns `default` with these numbers of a file in the place of its own, checked by BOUNDS and CHOICES."""
    if not isinstance(numbers, dict):
        raise WeightsError(f"expected a dict as arch, found a {type(numbers).__name__}")
    if isinstance(default, PyramidArchitecture):
        numbers = {"fine_levels": 0} | numbers  # files from before there was a smaller network for the finest levels
        if "max_gap" in numbers:  # files from when there were more exposures for more stops
            numbers["exposures"] = 0 if numbers.pop("max_gap") == float("inf") else default.exposures
    arch = dataclasses.replace(default, **numbers)
    for field in dataclasses.fields(arch):
        value, usual = getattr(arch, field.name), getattr(default, field.name)
        several = isinstance(usual, tuple)
        values, kind = (value, type(usual[0])) if several else ((value,), type(usual))
        if several and not (isinstance(value, tuple) and 1 <= len(value) <= MOST_LAYERS):
            raise WeightsError(f"expected up to {MOST_LAYERS} numbers as {field.name}")
        low, high = BOUNDS.get(field.name, (None, None))
        for number in values:
            if type(number) is not kind:
                raise WeightsError(f"expected {kind.__name__} as {field.name}, found {type(number).__name__}")
            if low is not None and not low <= number <= high:
                raise WeightsError(f"{field.name} is {str(number)[:20]}, expected {low} to {high}")
            if field.name in CHOICES and number not in CHOICES[field.name]:
                raise WeightsError(f"expected one of {CHOICES[field.name]} as {field.name}")
    return arch


def _checked_state(expected: State, state: object) -> State:
    """Returns a file's weights if they have the expected names, shapes and finite values; else raises ValueError."""
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise WeightsError("expected a dict of tensors as its weights")
    if sum(value.nbytes for value in expected.values()) > MAX_BYTES:
        raise WeightsError(f"it has more than {MAX_BYTES:,} bytes of weights")
    if odd := expected.keys() ^ state.keys():
        raise WeightsError(f"weights are missing or too many: {', '.join(sorted(key[:40] for key in odd)[:5])}")
    for key, value in state.items():
        if value.shape != expected[key].shape or value.layout != torch.strided or value.device.type != "cpu":
            raise WeightsError(f"{key} is {tuple(value.shape)}, expected {tuple(expected[key].shape)}")
        kind = expected[key].dtype
        if value.dtype != kind and not (kind.is_floating_point and value.is_floating_point()):
            raise WeightsError(f"{key} holds {value.dtype}, expected {kind}")
        if kind.is_floating_point and not (value.abs() <= LARGEST).all():  # NaN is not <= either
            raise WeightsError(f"{key} has values that are not finite, or beyond {LARGEST:,}: it is damaged")
    return state


def _authors_state(path: str | PathLike) -> State:
    """Returns the authors' six kernels (out, in, height, width) by our names.

    Theano convolves, PyTorch correlates: the kernels are flipped.
    """
    names = list(_shapes("DeepFuse_authors", ARCHITECTURES["DeepFuse_authors"]))
    try:
        with np.load(path, allow_pickle=False) as archive:
            kernels = {key: archive[key] for key in archive.files}
    except Exception as error:  # NumPy raises exceptions of many kinds for damaged files
        raise WeightsError(
            f"{path} is a damaged .npz archive, or holds Python objects: {_first_line(error)}"
        ) from error
    expected = [f"arr_{i}" for i in range(len(names))]
    if sorted(kernels) != expected or any(x.ndim != 4 or x.dtype.kind != "f" for x in kernels.values()):
        found = [f"{key}{kernel.shape}" for key, kernel in kernels.items()][:8]
        raise WeightsError(f"{path} is not the authors' archive: expected kernels {expected}, found {found}")
    flipped = (np.ascontiguousarray(kernels[key][:, :, ::-1, ::-1], np.float32) for key in expected)
    return dict(zip(names, map(torch.from_numpy, flipped), strict=True))


def _kind(channels: int) -> str:
    return {1: "gray (1-channel)", 3: "RGB (3-channel)"}.get(channels, f"{channels}-channel")


def _shown(content: object) -> str:
    return content[:40] if isinstance(content, str) else type(content).__name__


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
