"""`fuse_model`: a network by its name or from a file of weights.

Three kinds of file are told apart by their content: this project's checkpoints, the DeepFuse authors' Theano archive
(an .npz with arrays arr_0 ... arr_5), and the predecessor's .pth (keys layer1, layer2, layer4, layer5, layer6).
"""

import dataclasses
import os
import pickle
import warnings
import zipfile
from os import PathLike

import numpy as np
import torch
from torch import nn

from . import DeepFuse as paper
from .DeepFuse import Architecture, DeepFuse
from .DeepFusePyramid import DeepFusePyramid, PyramidArchitecture

ARCHITECTURES = paper.ARCHITECTURES | {"DeepFuse_pyramid": PyramidArchitecture()}

PREDECESSOR_LAYERS = ("layer1", "layer2", "layer4", "layer5", "layer6")
# The predecessor stored its best loss as a NumPy scalar: these names, and no others, may appear in a pickle as well.
NUMPY_SCALARS = [
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    np._core.multiarray.scalar,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int64")),
]


def build_network(name: str, arch: Architecture | PyramidArchitecture) -> nn.Module:
    """Returns a freshly initialised network of this architecture, in eval mode, with attribute `name`."""
    model = DeepFusePyramid(arch) if isinstance(arch, PyramidArchitecture) else DeepFuse(arch)
    model.name = name
    return model.eval()


def fuse_model(
    name: str | None = None, weights: str | PathLike | None = None, image_channels: int | None = None
) -> nn.Module:
    """Returns a network in eval mode on the CPU, with attribute `name`.

    Args:
        name: one of `ARCHITECTURES`; None takes the one that the weights are for ("DeepFuse" without weights).
        weights: a file to load; None leaves the random initialisation.
        image_channels: 1 for luminance, 3 for RGB; None takes that of the weights (1 without weights).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, a file that is no checkpoint, is damaged or would run code, or weights of another
            architecture or number of channels than asked for.
    """
    if name is not None and name not in ARCHITECTURES:
        raise ValueError(f"no model is called {name!r}: expected one of {', '.join(ARCHITECTURES)}")
    if weights is None:
        name = name or "DeepFuse"
        return build_network(name, dataclasses.replace(ARCHITECTURES[name], image_channels=image_channels or 1))
    model = _read_network(weights)
    if name not in (None, model.name):
        raise ValueError(f"{weights} holds a {model.name}, expected a {name}: ask for model {model.name}")
    channels = model.arch.image_channels
    if image_channels not in (None, channels):
        raise ValueError(
            f"{weights} holds a network for {_kind(channels)} pictures, expected one for {_kind(image_channels)}: "
            f"use {'--gray' if channels == 1 else '--no-gray'}"
        )
    return model


def read_checkpoint(path: str | PathLike) -> dict:
    """Returns the dict that a .pth file holds, its tensors on the CPU; no code in the file is ever run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, is damaged, or would run code.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file of weights")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of files that are refused in any case
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make it raise nearly anything
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            raise ValueError(f"{path} holds Python code besides tensors, which is never run: not loaded") from error
        raise ValueError(f"{path} is not a checkpoint, or it is damaged: expected a .pth or .npz of weights") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, expected a checkpoint's dict")
    return checkpoint


def _kind(channels: int) -> str:
    return {1: "gray (1-channel)", 3: "RGB (3-channel)"}.get(channels, f"{channels}-channel")


def _read_network(path: str | PathLike) -> nn.Module:
    """Returns the network in a file of any of the three kinds."""
    if zipfile.is_zipfile(path) and all(entry.endswith(".npy") for entry in zipfile.ZipFile(path).namelist()):
        return _from_authors(path)
    checkpoint = read_checkpoint(path)
    if {"name", "arch", "model"} <= checkpoint.keys():
        return _from_project(path, checkpoint)
    state = checkpoint["model"] if isinstance(checkpoint.get("model"), dict) else checkpoint
    if {str(key).split(".")[0] for key in state} == set(PREDECESSOR_LAYERS):
        return _from_predecessor(path, state)
    raise ValueError(
        f"{path} is not a checkpoint that is known here: expected keys name, arch, model (this project) "
        f"or {', '.join(PREDECESSOR_LAYERS)} (the predecessor), found {', '.join(map(str, list(state)[:5])) or 'none'}"
    )


def _from_project(path: str | PathLike, checkpoint: dict) -> nn.Module:
    name = str(checkpoint["name"])
    if name not in ARCHITECTURES:
        raise ValueError(f"{path} holds a {name!r}, which is not known here: expected {', '.join(ARCHITECTURES)}")
    try:
        model = build_network(name, type(ARCHITECTURES[name])(**checkpoint["arch"]))
        model.load_state_dict(checkpoint["model"])
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit the network that it names: {_first_line(error)}") from error
    return model


def _from_authors(path: str | PathLike) -> nn.Module:
    """Returns `DeepFuse_authors` from six kernels (out, in, height, width), of a true convolution: flipped here."""
    model = build_network("DeepFuse_authors", ARCHITECTURES["DeepFuse_authors"])
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    expected = {f"arr_{i}": tuple(conv.weight.shape) for i, conv in enumerate(convolutions)}
    try:
        with np.load(path, allow_pickle=False) as archive:
            kernels = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is a damaged .npz archive, or holds Python objects: {_first_line(error)}") from error
    found = {key: kernel.shape for key, kernel in kernels.items()}
    if found != expected:
        raise ValueError(f"{path} is not the authors' archive: expected the arrays {expected}, found {found}")
    with torch.no_grad():
        for key, conv in zip(expected, convolutions, strict=True):
            conv.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernels[key][:, :, ::-1, ::-1], np.float32)))
    return model


def _from_predecessor(path: str | PathLike, state: dict) -> nn.Module:
    """Returns `DeepFuse_bn`: a layer's `layer.0` is the convolution, its `layer.1` the BatchNorm."""
    try:
        channels = state["layer1.layer.0.weight"].shape[1]
        model = build_network("DeepFuse_bn", dataclasses.replace(ARCHITECTURES["DeepFuse_bn"], image_channels=channels))
        for kind, index in ((nn.Conv2d, 0), (nn.BatchNorm2d, 1)):
            modules = [module for module in model.modules() if isinstance(module, kind)]
            for layer, module in zip(PREDECESSOR_LAYERS, modules, strict=True):
                prefix = f"{layer}.layer.{index}."
                module.load_state_dict(
                    {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
                )
    except (KeyError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path} is not the predecessor's DeepFuse: {_first_line(error)}") from error
    return model


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
