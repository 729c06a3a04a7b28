"""The networks on their device: the pyramid, which decides at a bounded size, and exact tiles for the paper's networks.

The paper's networks are defined at full resolution. They meet a tile at a time, with a margin of their receptive field,
so that the tiled picture equals the untiled one and memory grows with the picture alone.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from models import DeepFusePyramid, Network
from models.DeepFuse import DeepFuse
from utils.util_colour import fuse_chroma
from utils.util_device import device_on
from utils.util_image import bgr_to_ycrcb, from_float, luma, to_float, ycrcb_to_bgr

Box = tuple[slice, slice]  # rows, columns
Tiles = Iterator[tuple[Box, torch.Tensor]]  # boxes that cover a picture, each with its pixels (1, C, h, w)
AUTHORS_CLIPPED = 0.01  # of the pixels, at either end: the default of Matlab's imadjust
CPU_TILE, MIN_TILE, MAX_TILE = 256, 64, 4096  # pixels
GPU_BYTES_PER_PIXEL = 4096  # of a tile: 64 channels of float32 a few times over, and the convolutions' workspace


def on_device(model: Network, device: str | torch.device = "cpu", tile: int | None = None):
    """Returns the network of `models.fuse_model`, in eval mode on a device, as `Fuser` runs it.

    Args:
        device: as for `util_device.device_on`: "cpu", "cuda", "auto", ...
        tile: side in pixels of the largest square that a paper's network fuses at once; None chooses it by the memory
            that the device has free. It halves whenever a GPU runs out of memory.

    Raises:
        ValueError: no such device, or an impossible tile.
    """
    if tile is not None and (tile < 2 or tile % 2):
        raise ValueError(f"tile must be an even number of pixels, got {tile}")
    model = model.eval().to(device_on(device)).to(memory_format=torch.channels_last)  # several times faster
    return DecidingNetwork(model) if isinstance(model, DeepFusePyramid) else TiledNetwork(model, tile)


class DecidingNetwork:
    """The pyramid network on its device."""

    def __init__(self, model: DeepFusePyramid):
        self.model, self.decision_pixels, self.max_gap = model, model.arch.decision_pixels, model.arch.max_gap
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def decide(self, exposures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns fused luminance (h, w) and weights (K, h, w) of sum 1, for luminance (K, h, w) float32 in [0, 1]."""
        fused, log_weights = self.model(torch.from_numpy(exposures)[None, :, None].to(self.device))
        return fused[0, 0].cpu().numpy(), log_weights[0].exp().cpu().numpy()


class TiledNetwork:
    """A network of the paper on its device, which fuses whole pictures in tiles."""

    def __init__(self, model: DeepFuse, tile: int | None = None):
        self.model, self.tile = model, tile
        self.device, self.channels = next(model.parameters()).device, model.arch.image_channels

    def fuse(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the fused picture, like the exposures: as `Fuser.fuse`."""
        fused = np.empty_like(images[0])
        for box, y_hat in self._tiles(images, *fused.shape[:2]):
            if not y_hat.isfinite().all():
                raise ValueError("the network gives values that are not finite: its weights are damaged")
            fused[box] = self._picture(y_hat[0].permute(1, 2, 0).numpy(), [x[box] for x in images])
        return fused

    def _tiles(self, images: Sequence[np.ndarray], height: int, width: int) -> Tiles:
        """Yields the boxes of the picture with their fused pixels, stretched where the architecture says so.

        The authors' inference: luminance of 16..235 in 0..255 goes in, what comes out is stretched to 0..255, and their
        Gen_Result.m then clips a share of the pixels at either end (imadjust).
        """
        if not self.model.arch.stretched:
            yield from self._boxes(lambda x: self._tensor(x), images, height, width)
            return
        fused = torch.empty(1, self.channels, height, width)
        for box, y_hat in self._boxes(lambda x: (16 + 219 * self._tensor(x)) / 255, images, height, width):
            fused[(..., *box)] = y_hat
        ends = np.quantile(fused.numpy(), [AUTHORS_CLIPPED, 1 - AUTHORS_CLIPPED])
        low, high = torch.from_numpy(ends.astype(np.float32))
        for box in split((slice(0, height), slice(0, width)), CPU_TILE):
            yield box, (fused[(..., *box)] - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)

    def _boxes(self, tensor: Callable, images: Sequence[np.ndarray], height: int, width: int) -> Tiles:
        """Yields the boxes of a picture with their fused pixels; where a GPU's memory is short, tiles halve."""
        tile = self.tile or self._tile_by_memory()
        pending = split((slice(0, height), slice(0, width)), tile)
        while pending:
            outer, inner = grow(pending[0], self.model.halo, height, width)
            try:
                fused = self._compute(torch.stack([tensor(x[outer]) for x in images], 1))[(..., *inner)]
            except torch.cuda.OutOfMemoryError as error:
                if tile <= MIN_TILE:
                    raise ValueError(f"{self.device} has no memory for a tile of {tile} pixels: use the cpu") from error
                fused = None
            if fused is not None:
                yield pending.pop(0), fused
                continue
            torch.cuda.empty_cache()  # not in the except block: its traceback holds on to what filled the memory
            self.tile = tile = max(tile // 4 * 2, MIN_TILE)
            pending = [small for box in pending for small in split(box, tile)]

    def _tile_by_memory(self) -> int:
        if self.device.type != "cuda":
            return CPU_TILE
        free, _ = torch.cuda.mem_get_info(self.device)
        return min(max(int((free / 2 / GPU_BYTES_PER_PIXEL) ** 0.5) // 2 * 2, MIN_TILE), MAX_TILE)

    @torch.inference_mode()
    def _compute(self, exposures: torch.Tensor) -> torch.Tensor:
        return self.model(exposures.to(self.device)).cpu()

    def _tensor(self, image: np.ndarray) -> torch.Tensor:
        """Returns what the network takes (1, C, h, w), in [0, 1], of a picture (h, w[, C])."""
        if self.channels == 1:
            return torch.from_numpy(luma(image))[None, None]
        rgb = to_float(image[..., 2::-1]) if image.ndim == 3 else np.dstack([to_float(image)] * 3)
        return torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None]

    def _picture(self, y_hat: np.ndarray, exposures: list[np.ndarray]) -> np.ndarray:
        """Returns the picture, like the exposures (h, w[, C]), of what the network gave (h, w, C)."""
        dtype = exposures[0].dtype
        if exposures[0].ndim == 2:
            return from_float(y_hat.mean(2), dtype)
        if self.channels == 3:
            bgr = y_hat[..., ::-1]
        else:
            chroma = fuse_chroma([bgr_to_ycrcb(to_float(x[..., :3]))[..., 1:] for x in exposures])
            bgr = ycrcb_to_bgr(np.dstack([y_hat, chroma]))
        alpha = [to_float(x[..., 3:]) for x in exposures]  # (h, w, 0) without
        return from_float(np.dstack([bgr, sum(alpha) / len(alpha)]), dtype)


def split(box: Box, tile: int) -> list[Box]:
    """Returns the boxes of at most tile x tile pixels that cover a box, row by row."""
    rows, columns = ([slice(i, min(i + tile, side.stop)) for i in range(side.start, side.stop, tile)] for side in box)
    return [(row, column) for row in rows for column in columns]


def grow(box: Box, halo: int, height: int, width: int) -> tuple[Box, Box]:
    """Returns the box with `halo` more pixels on each side, as far as there are any, and where the box lies in it."""
    rows, columns = (
        slice(max(side.start - halo, 0), min(side.stop + halo, size))
        for side, size in zip(box, (height, width), strict=True)
    )
    down, across = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(box, (rows, columns), strict=True))
    return (rows, columns), (down, across)
