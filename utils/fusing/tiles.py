"""The networks on their device: the pyramid, which decides on a small copy, and exact tiles for the paper's networks.

The paper's networks work at full resolution. They fuse one tile at a time, with a margin as wide as their receptive
field reaches, so that the result equals that of the whole picture while the network's memory stays that of one tile.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch

from models import Network as Model
from utils.device import device_on
from utils.errors import UserError
from utils.fusing.colour import fuse_chroma
from utils.fusing.network import DecidingNetwork, Network
from utils.pictures.pixels import from_float, luma, to_float

Box = tuple[slice, slice]  # rows, columns
Tiles = Iterator[tuple[Box, torch.Tensor]]  # boxes that cover a picture, each with its pixels (1, C, h, w)
AUTHORS_CLIPPED = 0.01  # share of the pixels clipped at either end: the default of Matlab's imadjust
CPU_TILE, GPU_TILE, MIN_TILE = 256, 1024, 64  # side of a tile in pixels: on a CPU; on a GPU (4 GB), and the smallest


def on_device(model: Model, device: str | torch.device = "cpu") -> Network:
    """Returns the network of `models.fuse_model`, in eval mode, as `Fuser` runs it; `device` as for `device_on`."""
    model = model.eval().to(device_on(device)).to(memory_format=torch.channels_last)  # several times faster
    return SmallDecision(model) if model.halo is None else TiledNetwork(model)


class SmallDecision(DecidingNetwork):
    """A network that decides on a small copy, such as the pyramid, on its device."""

    def __init__(self, model: Model):
        self.model, self.decision_pixels, self.exposures = model, model.arch.decision_pixels, model.arch.exposures
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def decide(self, exposures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns fused luminance (h, w) and weights (K, h, w) of sum 1, for luminance (K, h, w) float32 in [0, 1]."""
        fused, log_weights = self.model(torch.from_numpy(exposures)[None, :, None].to(self.device))
        return fused[0, 0].cpu().numpy(), log_weights[0].exp().cpu().numpy()


class TiledNetwork(Network):
    """A network that works at full size, such as the paper's, on its device; fuses whole pictures in tiles."""

    def __init__(self, model: Model):
        assert model.halo is not None
        self.model, self.halo, self.channels = model, model.halo, model.arch.image_channels
        self.device = next(model.parameters()).device
        self.tile = GPU_TILE if self.device.type == "cuda" else CPU_TILE  # halves when a GPU runs out of memory

    def fuse(self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None) -> np.ndarray:
        """Returns the fused picture, of the exposures' shape and dtype, as for `Fuser.fuse`; `stops` do not matter."""
        fused = np.empty_like(images[0])
        for box, y_hat in self._tiles(images, *fused.shape[:2]):
            if not y_hat.isfinite().all():
                raise UserError(f"the network gives values that are not finite: {self.weights} is damaged")
            fused[box] = self._picture(y_hat[0].permute(1, 2, 0).numpy(), [x[box] for x in images])
        return fused

    def _tiles(self, images: Sequence[np.ndarray], height: int, width: int) -> Tiles:
        """Yields the boxes of the picture with their fused pixels, stretched if the architecture is `stretched`.

        Stretched, as the authors do: to 0..255, with a share of the pixels clipped at either end (imadjust in their
        Gen_Result.m).
        """
        if not getattr(self.model.arch, "stretched", False):
            yield from self._boxes(images, height, width)
            return
        fused = torch.empty(1, self.channels, height, width)
        for box, y_hat in self._boxes(images, height, width):
            fused[(..., *box)] = y_hat
        ends = np.quantile(fused.numpy(), [AUTHORS_CLIPPED, 1 - AUTHORS_CLIPPED])
        low, high = torch.from_numpy(ends.astype(np.float32))
        for box in split((slice(0, height), slice(0, width)), CPU_TILE):
            yield box, (fused[(..., *box)] - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)

    def _boxes(self, images: Sequence[np.ndarray], height: int, width: int) -> Tiles:
        """Yields the boxes of a picture with their fused pixels."""
        pending = split((slice(0, height), slice(0, width)), self.tile)
        while pending:
            outer, inner = grow(pending[0], self.halo, height, width)
            try:
                seen = torch.stack([self._tensor(x[outer]) for x in images], 1)
                with torch.inference_mode():
                    fused = self.model(seen.to(self.device)).cpu()[(..., *inner)]
            except torch.cuda.OutOfMemoryError as error:
                if self.tile <= MIN_TILE:
                    few = f"a tile of {self.tile} pixels"
                    raise UserError(f"{self.device} has no memory for {few}: use the cpu") from error
                fused = None
            if fused is not None:
                yield pending.pop(0), fused
                continue
            torch.cuda.empty_cache()  # outside the except block, whose traceback keeps the memory alive
            self.tile = max(self.tile // 4 * 2, MIN_TILE)
            pending = [small for box in pending for small in split(box, self.tile)]

    def _tensor(self, image: np.ndarray) -> torch.Tensor:
        """Returns the network's input (1, C, h, w), in [0, 1], of a picture (h, w[, C])."""
        if self.channels == 1:
            seen = luma(image)[None]
        else:
            seen = np.moveaxis(
                to_float(image[..., 2::-1]) if image.ndim == 3 else np.dstack([to_float(image)] * 3), 2, 0
            )
        if getattr(self.model.arch, "studio", False):
            seen = (16 + 219 * seen) / 255
        return torch.from_numpy(np.ascontiguousarray(seen, np.float32))[None]

    def _picture(self, y_hat: np.ndarray, exposures: list[np.ndarray]) -> np.ndarray:
        """Returns the picture, of the exposures' shape (h, w[, C]) and dtype, of the network's output (h, w, C)."""
        dtype = exposures[0].dtype
        if exposures[0].ndim == 2:
            return from_float(y_hat.mean(2), dtype)
        if self.channels == 3:
            bgr = y_hat[..., ::-1]
        else:
            chroma = fuse_chroma([cv2.cvtColor(to_float(x[..., :3]), cv2.COLOR_BGR2YCrCb)[..., 1:] for x in exposures])
            bgr = cv2.cvtColor(np.dstack([y_hat, chroma]), cv2.COLOR_YCrCb2BGR)
        alpha = [to_float(x[..., 3:]) for x in exposures]  # (h, w, 1), or (h, w, 0) without alpha
        return from_float(np.dstack([bgr, sum(alpha) / len(alpha)]), dtype)


def split(box: Box, tile: int) -> list[Box]:
    """Returns the boxes of at most tile x tile pixels that cover a box, row by row."""

    def parts(side: slice) -> list[slice]:
        return [slice(start, min(start + tile, side.stop)) for start in range(side.start, side.stop, tile)]

    rows, columns = box
    return [(row, column) for row in parts(rows) for column in parts(columns)]


def grow(box: Box, halo: int, height: int, width: int) -> tuple[Box, Box]:
    """Returns a box grown by `halo` pixels on each side, cut at the picture's edges, and the old box within the new."""

    def grown(side: slice, size: int) -> tuple[slice, slice]:
        start = max(side.start - halo, 0)
        return slice(start, min(side.stop + halo, size)), slice(side.start - start, side.stop - start)

    (rows, down), (columns, across) = grown(box[0], height), grown(box[1], width)
    return (rows, columns), (down, across)
