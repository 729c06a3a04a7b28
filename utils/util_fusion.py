"""Fuse exposures of any number and size with a loaded network."""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from models import fuse_model
from utils.util_device import device_on
from utils.util_image import (
    NEUTRAL_CHROMA,
    bgr_to_ycrcb,
    from_float,
    luma,
    read_image,
    to_float,
    write_image,
    ycrcb_to_bgr,
)

Box = tuple[slice, slice]  # rows, columns


def fuse_chroma(exposures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the chroma (...) of two or more exposures (...), float32 around NEUTRAL_CHROMA.

    Weighted per pixel by the distance from neutral (the paper's equation 4, tau = 128 of 256, for K exposures):
    sum_k c_k |c_k - tau| / sum_k |c_k - tau|; tau where every exposure is neutral.
    """
    offsets = np.stack(exposures) - np.float32(NEUTRAL_CHROMA)
    weights = np.abs(offsets)
    total = weights.sum(0)
    return NEUTRAL_CHROMA + (weights * offsets).sum(0) / np.where(total > 0, total, 1)


def boxes(height: int, width: int, tile: int) -> list[Box]:
    """Returns the rectangles of at most tile x tile pixels that cover height x width, row by row."""
    return [
        (slice(top, min(top + tile, height)), slice(left, min(left + tile, width)))
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]


def grow(box: Box, halo: int, height: int, width: int) -> tuple[Box, Box]:
    """Returns the box with `halo` more pixels on each side, as far as there are any, and where the box lies in it."""
    outer = tuple(
        slice(max(side.start - halo, 0), min(side.stop + halo, size))
        for side, size in zip(box, (height, width), strict=True)
    )
    inner = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(box, outer, strict=True))
    return outer, inner


class Fuser:
    """Fuses exposures with a network, a tile at a time: memory grows with the pictures, not with the network."""

    def __init__(self, model: torch.nn.Module, device: str = "cpu", tile: int = 512):
        """Args:
        model: From `models.fuse_model`.
        device: "cpu", "cuda", "cuda:1", ...
        tile: Side of the largest square in pixels that the network meets at once.
        """
        self.device = device_on(device)
        self.model = model.eval().to(self.device)
        self.channels = model.arch.image_channels
        self.tile = tile

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike, device: str = "cpu", name: str | None = None) -> "Fuser":
        """Returns a Fuser with the weights of a file; `name` is needed only where the file does not say its network."""
        return cls(fuse_model(name, weights=path), device)

    def fuse(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the fused picture of two or more exposures, in any order, of the same shape and dtype as each.

        Luminance is fused by the network, chroma by `fuse_chroma`; an RGB network fuses all three channels itself.

        Args:
            images: (H, W, 3) BGR uint8 or uint16.

        Raises:
            ValueError: Fewer than two exposures, or shapes or types that differ or are not these.
        """
        check_exposures(images)
        height, width = images[0].shape[:2]
        fused = np.empty_like(images[0])
        if self.channels == 3:
            for box, rgb in self._tiles(lambda box: [to_float(x[box][..., ::-1]) for x in images], height, width):
                fused[box] = from_float(rgb[..., ::-1], fused.dtype)
        else:
            for box, y_hat in self._tiles(lambda box: [luma(x[box])[..., None] for x in images], height, width):
                chroma = fuse_chroma([bgr_to_ycrcb(to_float(x[box]))[..., 1:] for x in images])
                fused[box] = from_float(ycrcb_to_bgr(np.dstack([y_hat, chroma])), fused.dtype)
        return fused

    def fuse_luminance(self, exposures: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the fused luminance (H, W) of two or more of that shape, float32 in [0, 1]; it is not clamped."""
        fused = np.empty(exposures[0].shape, np.float32)
        for box, y_hat in self._tiles(lambda box: [y[box][..., None] for y in exposures], *fused.shape):
            fused[box] = y_hat[..., 0]
        return fused

    def fuse_files(self, paths: Sequence[str | os.PathLike], out: str | os.PathLike) -> None:
        """Fuses picture files into the file `out`, in the format of its suffix."""
        write_image(out, self.fuse([read_image(path) for path in paths]))

    def _tiles(self, read: Callable[[Box], list], height: int, width: int) -> Iterator[tuple[Box, np.ndarray]]:
        """Yields every box of the picture with its fused pixels (h, w, C), float32, not clamped.

        Args:
            read: From a box to the exposures' pixels in it, each (h, w, C) float32 in [0, 1].
        """
        if getattr(self.model, "name", "") == "DeepFuse_authors":
            return self._stretched_tiles(read, height, width)
        return self._plain_tiles(read, height, width)

    def _stretched_tiles(self, read: Callable[[Box], list], height: int, width: int) -> Iterator:
        """The authors' inference: luminance of 16..235 in 0..255 goes in, what comes out is stretched to 0..255."""
        fused = np.empty((height, width, self.channels), np.float32)
        for box, y_hat in self._plain_tiles(lambda box: [(16 + 219 * y) / 255 for y in read(box)], height, width):
            fused[box] = y_hat
        low, high = fused.min(), fused.max()
        for box in boxes(height, width, self.tile):
            yield box, (fused[box] - low) / max(high - low, np.finfo(np.float32).tiny)

    def _plain_tiles(self, read: Callable[[Box], list], height: int, width: int) -> Iterator:
        for box in boxes(height, width, self.tile):
            outer, inner = grow(box, self.model.halo, height, width)
            yield box, self._run(self.model, read(outer))[inner]

    @torch.inference_mode()
    def _run(self, function: Callable, exposures: list) -> np.ndarray:
        """Returns function(*exposures) (h, w, C) of arrays (h, w, C), computed on the device."""
        tensors = [torch.from_numpy(np.ascontiguousarray(y.transpose(2, 0, 1)))[None] for y in exposures]
        return function(*(y.to(self.device) for y in tensors))[0].permute(1, 2, 0).cpu().numpy()


def check_exposures(images: Sequence[np.ndarray]) -> None:
    """Raises ValueError unless these are two or more (H, W, 3) uint8 or uint16 of one shape and dtype."""
    if len(images) < 2:
        raise ValueError(f"fusing needs two or more exposures, got {len(images)}")
    first = images[0]
    if first.dtype not in (np.uint8, np.uint16) or first.ndim != 3 or first.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8 or uint16, got {first.shape} {first.dtype}")
    for number, image in enumerate(images[1:], 2):
        if image.shape != first.shape or image.dtype != first.dtype:
            raise ValueError(
                f"exposures must have one size and type: the first is {first.shape} {first.dtype}, "
                f"number {number} is {image.shape} {image.dtype}"
            )
