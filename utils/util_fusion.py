"""Fuse exposures of any number and size with a loaded network."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from models import fuse_model
from models.DeepFuse import DeepFusePyramid, halve
from utils.util_align import align_exposures
from utils.util_device import device_on
from utils.util_image import (
    NEUTRAL_CHROMA,
    bgr_to_ycrcb,
    check_suffix,
    from_float,
    luma,
    read_photo,
    to_float,
    write_image,
    ycrcb_to_bgr,
)
from utils.util_metadata import Metadata, read_metadata

Box = tuple[slice, slice]  # rows, columns
Tiles = Iterator[tuple[Box, torch.Tensor]]  # boxes that cover a picture, each with its pixels (1, C, h, w)
Reader = Callable[[Box], list[torch.Tensor]]  # from a box to the exposures' pixels in it, (1, C, h, w) in [0, 1]
AUTHORS_CLIPPED = 0.01  # of the pixels, at either end: the default of Matlab's imadjust
CPU_TILE, MIN_TILE, MAX_TILE = 256, 64, 4096  # pixels; divisible by four, as the pyramid asks
GPU_BYTES_PER_PIXEL = 4096  # of a tile: 64 channels of float32 a few times over, and the convolutions' workspace


class Fuser:
    """Fuses exposures with a network, a tile at a time: memory grows with the pictures, not with the network."""

    def __init__(self, model: torch.nn.Module, device: str | torch.device = "cpu", tile: int | None = None):
        """Puts the network on a device, in eval mode.

        Args:
            model: From `models.fuse_model`.
            device: As for `util_device.device_on`: "cpu", "cuda", "auto", ...
            tile: Side in pixels, even, of the largest square that the network fuses at once; None chooses it by the
                memory that the device has free. It halves whenever a GPU runs out of memory.
        """
        if tile is not None and (tile < 2 or tile % 2):
            raise ValueError(f"tile must be an even number of pixels, got {tile}")
        self.device = device_on(device)
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)  # several times faster
        self.channels = model.arch.image_channels
        self.tile = tile

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike, device: str = "cpu", name: str | None = None) -> "Fuser":
        """Returns a Fuser with the weights of a file; `name` makes sure of the network that they are for."""
        return cls(fuse_model(name, weights=path), device)

    def fuse(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the fused picture of two or more exposures, in any order; shape and dtype are theirs.

        Luminance is fused by the network, chroma by `fuse_chroma`, alpha is averaged. An RGB network fuses all three
        channels itself.

        Args:
            images: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16.

        Raises:
            ValueError: Fewer than two exposures, shapes or types that differ or are not these, or a device without
                memory for the smallest tile.
        """
        check_exposures(images)
        fused = np.empty_like(images[0])
        tiles = self._tiles(lambda box: [self._tensor(x[box]) for x in images], *fused.shape[:2], AUTHORS_CLIPPED)
        for box, y_hat in tiles:
            fused[box] = self._picture(y_hat, [x[box] for x in images])
        return fused

    def fuse_luminance(self, exposures: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the fused luminance (H, W) of two or more of that shape, float32 in [0, 1]; it is not clamped."""
        fused = np.empty(exposures[0].shape, np.float32)
        for box, y_hat in self._tiles(
            lambda box: [torch.from_numpy(y[box])[None, None] for y in exposures], *fused.shape
        ):
            fused[box] = y_hat[..., 0]
        return fused

    def fuse_files(
        self,
        paths: Sequence[str | os.PathLike],
        out: str | os.PathLike,
        metadata_from: str | os.PathLike | None = None,
        align: str | None = None,
    ) -> None:
        """Fuses picture files into the file `out`, in the format of its suffix, with metadata.

        Args:
            paths: Two or more pictures of one scene, in any order.
            out: Is none of them.
            metadata_from: The file whose EXIF and colour profile go into `out`; None is the first of `paths`.
            align: "mtb" or "homography" aligns hand-held shots first, and crops to what all of them show.

        Raises:
            OSError, ValueError: As `read_exposures`, `fuse`, `align_exposures` and `write_image`.
        """
        images, metadata = read_exposures(paths, out, metadata_from)
        write_image(out, self.fuse(align_exposures(images, align) if align else images), metadata)

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

    def _tiles(self, read: Reader, height: int, width: int, clipped: float = 0.0) -> Iterator[tuple[Box, np.ndarray]]:
        """Yields the boxes of the picture, each with its fused pixels (h, w, C), float32, not clamped.

        `clipped` is for `_stretched_tiles`.
        """
        if getattr(self.model, "name", None) == "DeepFuse_authors":
            tiles = self._stretched_tiles(read, height, width, clipped)
        elif isinstance(self.model, DeepFusePyramid):
            tiles = self._pyramid_tiles(read, height, width)
        else:
            tiles = self._plain_tiles(read, height, width)
        for box, y_hat in tiles:
            if not y_hat.isfinite().all():
                raise ValueError("the network gives values that are not finite: its weights are damaged")
            yield box, y_hat[0].permute(1, 2, 0).numpy()

    def _plain_tiles(self, read: Reader, height: int, width: int) -> Tiles:
        def fuse_box(box: Box) -> torch.Tensor:
            outer, inner = grow(box, self.model.halo, height, width)
            return self._compute(self.model, *read(outer))[(..., *inner)]

        return self._boxes(fuse_box, height, width)

    def _stretched_tiles(self, read: Reader, height: int, width: int, clipped: float) -> Tiles:
        """The authors' inference: luminance of 16..235 in 0..255 goes in, and what comes out is stretched to 0..255.

        For pictures their Gen_Result.m then also clips a share `clipped` of the pixels at either end (imadjust).
        """
        fused = torch.empty(1, self.channels, height, width)
        for box, y_hat in self._plain_tiles(lambda box: [(16 + 219 * y) / 255 for y in read(box)], height, width):
            fused[(..., *box)] = y_hat
        low, high = torch.from_numpy(np.quantile(fused.numpy(), [clipped, 1 - clipped]).astype(np.float32))
        for box in split((slice(0, height), slice(0, width)), CPU_TILE):
            yield box, (fused[(..., *box)] - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)

    def _pyramid_tiles(self, read: Reader, height: int, width: int) -> Tiles:
        """Coarse to fine. Held whole are the exposures at a quarter of the size and below, and one fused level."""
        model = self.model
        if min(height, width) < 4 * model.arch.top_size:
            whole = (slice(0, height), slice(0, width))
            yield whole, self._compute(model, *read(whole))
            return

        def read_moments(box: Box) -> list[torch.Tensor]:
            return [model.moments(y) for y in read(box)]

        def read_half(box: Box) -> list[torch.Tensor]:
            return list(map(halve, read_moments(tuple(slice(2 * side.start, 2 * side.stop) for side in box))))

        quarters, means = quarter_size(read, model.moments, height, width)
        levels = list(zip(*map(model.pyramid, quarters), strict=True))
        readers = [read_moments, read_half, *(partial(crop, level) for level in levels[:-1])]
        sizes = [(height, width), ((height + 1) // 2, (width + 1) // 2), *(y[0].shape[2:] for y in levels[:-1])]
        state = self._compute(model.fuse_top, levels[-1], means)
        for number in range(len(sizes) - 1, 0, -1):
            finer = state.new_empty(*state.shape[:2], *sizes[number])
            for box, tile in self._level_tiles(readers[number], state, means, *sizes[number], number):
                finer[(..., *box)] = tile
            state = finer
        for box, tile in self._level_tiles(read_moments, state, means, height, width, 0):
            yield box, tile[:, : self.channels]

    def _level_tiles(self, read: Reader, state: torch.Tensor, means, height: int, width: int, number: int) -> Tiles:
        """Yields the tiles of a level's state; arguments as of `DeepFusePyramid.fuse_level`, `read` its `fine`."""

        def fuse_box(box: Box) -> torch.Tensor:
            outer, inner = grow(box, self.model.level_halo(number), height, width)
            fine = read(outer)
            args = fine, list(map(halve, fine)), state[(..., *halved(outer))], means, number
            return self._compute(self.model.fuse_level, *args)[(..., *inner)]

        return self._boxes(fuse_box, height, width)

    def _boxes(self, fuse_box: Callable[[Box], torch.Tensor], height: int, width: int) -> Tiles:
        """Yields the boxes of a picture with their fused pixels; where a GPU's memory is short, tiles halve."""
        tile = self.tile or self._tile_by_memory()
        pending = split((slice(0, height), slice(0, width)), tile)
        while pending:
            try:
                fused = fuse_box(pending[0])
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
    def _compute(self, function: Callable, *args) -> torch.Tensor:
        """Returns function(*args), computed on the device, on the CPU; args are tensors, lists of them, and others."""

        def place(x: object) -> object:
            if isinstance(x, list | tuple):
                return [place(y) for y in x]
            return x.to(self.device) if isinstance(x, torch.Tensor) else x

        return function(*map(place, args)).cpu()


def fuse_chroma(exposures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the chroma (...) of two or more exposures (...), float32 around NEUTRAL_CHROMA.

    Weighted per value by the distance from neutral (the paper's equation for Cb and Cr, tau = 128 of 256, for K
    exposures): sum_k c_k |c_k - tau| / sum_k |c_k - tau|; tau where every exposure is neutral.
    """
    offsets = [c - np.float32(NEUTRAL_CHROMA) for c in exposures]
    total = sum(np.abs(offset) for offset in offsets)
    return NEUTRAL_CHROMA + sum(np.abs(offset) * offset for offset in offsets) / np.where(total > 0, total, 1)


def read_exposures(
    paths: Sequence[str | os.PathLike], out: str | os.PathLike, metadata_from: str | os.PathLike | None = None
) -> tuple[list[np.ndarray], Metadata]:
    """Returns the pictures of a scene (see `read_photo`) and the metadata for the fused one; arguments as `fuse_files`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: Fewer than two, one that cannot be read, one that `out` would overwrite, or of another size, type,
            orientation or colour profile than the first.
    """
    if len(paths) < 2:
        raise ValueError(
            f"fusing needs two or more exposures, got {len(paths)}: {', '.join(map(str, paths)) or 'none'}"
        )
    check_suffix(out)
    for path in paths:
        if os.path.exists(path) and os.path.exists(out) and os.path.samefile(path, out):
            raise ValueError(f"{out}: is one of the exposures and would be overwritten: name another output")
    images = []
    for path in paths:
        image, metadata = read_photo(path)
        images.append(image)
        if len(images) == 1:
            first = metadata
        for what, own, firsts in (
            ("size and channels", image.shape, images[0].shape),
            ("type", image.dtype, images[0].dtype),
            ("EXIF orientation", metadata.orientation, first.orientation),
        ):
            if own != firsts:
                raise ValueError(f"{path}: {what} {own}, but {paths[0]} has {firsts}: exposures must agree")
        if metadata.icc != first.icc:
            raise ValueError(f"{path}: another colour profile than {paths[0]}: convert the exposures to one")
    return images, read_metadata(metadata_from) if metadata_from else first


def check_exposures(images: Sequence[np.ndarray]) -> None:
    """Raises ValueError unless these are two or more (H, W[, 3 or 4]) uint8 or uint16 of one shape and dtype."""
    if len(images) < 2:
        raise ValueError(f"fusing needs two or more exposures, got {len(images)}")
    shape, dtype = images[0].shape, images[0].dtype
    if dtype not in (np.uint8, np.uint16) or shape[2:] not in ((), (3,), (4,)) or 0 in shape or len(shape) < 2:
        raise ValueError(f"expected (H, W), (H, W, 3) or (H, W, 4) uint8 or uint16, got {shape} {dtype}")
    for image in images:
        if image.shape != shape or image.dtype != dtype:
            raise ValueError(f"exposures must agree: the first is {shape} {dtype}, another {image.shape} {image.dtype}")


def split(box: Box, tile: int) -> list[Box]:
    """Returns the boxes of at most tile x tile pixels that cover a box, row by row."""
    rows, columns = ([slice(i, min(i + tile, side.stop)) for i in range(side.start, side.stop, tile)] for side in box)
    return [(row, column) for row in rows for column in columns]


def grow(box: Box, halo: int, height: int, width: int) -> tuple[Box, Box]:
    """Returns the box with `halo` more pixels on each side, as far as there are any, and where the box lies in it."""
    outer = tuple(
        slice(max(side.start - halo, 0), min(side.stop + halo, size))
        for side, size in zip(box, (height, width), strict=True)
    )
    inner = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(box, outer, strict=True))
    return outer, inner


def halved(box: Box) -> Box:
    """Returns the same box, which starts at even pixels, at half the size."""
    return tuple(slice(side.start // 2, (side.stop + 1) // 2) for side in box)


def crop(pictures: Sequence[torch.Tensor], box: Box) -> list[torch.Tensor]:
    """Returns the box of each picture (..., H, W)."""
    return [picture[(..., *box)] for picture in pictures]


def quarter_size(
    read: Reader, moments: Callable[[torch.Tensor], torch.Tensor], height: int, width: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Returns the exposures' moments, halved twice (1, 2C, h, w), and the exposures' means (1, C, 1, 1)."""
    quarters, sums = [], []
    for box in split((slice(0, height), slice(0, width)), CPU_TILE):
        exposures = read(box)
        if not quarters:
            size = tuple((((side + 1) // 2) + 1) // 2 for side in (height, width))
            quarters = [y.new_empty(1, 2 * y.shape[1], *size) for y in exposures]
            sums = [y.new_zeros(1, y.shape[1], 1, 1, dtype=torch.float64) for y in exposures]
        for y, quarter, total in zip(exposures, quarters, sums, strict=True):
            quarter[(..., *halved(halved(box)))] = halve(halve(moments(y)))
            total += y.sum((2, 3), keepdim=True, dtype=torch.float64)
    return quarters, [(total / (height * width)).float() for total in sums]
