"""`Fuser`: from a scene's exposures to the fused picture, in memory or file to file."""

import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.errors import UserError, clear, optional, user_errors
from utils.fusing.hdr import gain_map, light_size, rendition, scene_light
from utils.fusing.network import DecidingNetwork, Decision, Network, SmallCopy
from utils.fusing.onnx import OnnxNetwork
from utils.pictures import QUALITY
from utils.pictures.hdr import write_pq, write_radiance
from utils.pictures.image import MAX_PIXELS, RADIANCE_SUFFIXES, check_suffix, read_photo, read_radiance, write_image
from utils.pictures.light import same_colours
from utils.pictures.metadata import Metadata, read_metadata
from utils.pictures.pixels import finite, size_of
from utils.pictures.scenes import Scene
from utils.progress import counted
from utils.stack.align import align_exposures, unsteady
from utils.stack.ghost import remove_ghosts
from utils.stack.radiance import expose

ARRAYS = {  # how to turn pictures of other libraries into arrays
    "PIL": "np.asarray(picture), with rgb=True",
    "torch": "(255 * tensor).round().byte().permute(1, 2, 0).cpu().numpy(), with rgb=True for RGB",
}


class Fuser:
    """Fuses exposures of any number and size with a network."""

    def __init__(self, network: Network):
        """Takes a network on its device: an `onnx.OnnxNetwork`, or what `tiles.on_device` makes of a PyTorch model."""
        self.network = network

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike, device: str = "cpu", name: str | None = None) -> "Fuser":
        """Returns a Fuser with the weights of a file; `name` must match the file's network.

        Raises:
            FileNotFoundError, ValueError: As `models.fuse_model`, or for an .onnx file `onnx.OnnxNetwork`.
        """
        network: Network
        if Path(path).suffix.lower() == ".onnx":
            network = OnnxNetwork(path, device, name)
        else:
            optional("torch", str(path), "pip install torch, or use runs/pretrained/deepfuse.onnx")
            from models import WeightsError, fuse_model  # here: PyTorch takes longer to import than two shots to read
            from utils.fusing.tiles import on_device

            with user_errors(WeightsError):
                model = fuse_model(name, weights=path)
            network = on_device(model, device)
        network.weights = str(path)
        return cls(network)

    def fuse(self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None, hdr: bool = False) -> np.ndarray:
        """Returns the fused picture of two or more exposures, in any order; it has their shape and dtype.

        Args:
            images: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16. Alpha is averaged.
            stops: Exposure of each image in stops, as the camera noted it: used where pixels cannot tell.
            hdr: Whether to return the picture as light instead, see `hdr.rendition`.

        Raises:
            ValueError: There are fewer than two exposures, their shapes or types differ or are not these, or the device
                has no memory for the smallest tile; or HDR is wanted of gray ones.
        """
        check_exposures(images)
        fused = self.network.fuse(images, stops)
        if not hdr:
            return fused
        if fused.ndim == 2:
            raise UserError("gray pictures cannot become HDR")
        return rendition(fused, gain_map(fused, scene_light(images, stops, light_size(*fused.shape[:2]))))

    def fuse_files(
        self,
        paths: Sequence[str | os.PathLike],
        out: str | os.PathLike,
        metadata_from: str | os.PathLike | None = None,
        align: str | None = None,
        deghost: bool = False,
        reference: str | os.PathLike | None = None,
        hdr: bool = False,
    ) -> None:
        """Fuses picture files into the file `out`, in the format of its suffix, with metadata.

        Args:
            paths: Two or more pictures of one scene, in any order; or one radiance map.
            out: The picture to write, none of `paths`; .exr and .hdr get the scene's radiance, not fused.
            metadata_from: The file whose EXIF goes into `out`; None is the first of `paths`.
            align: "mtb" or "homography" aligns hand-held shots first, and crops to the area that all of them show.
            deghost: Whether to remove what moved between the shots; shots that cannot be aligned are then left out.
            reference: The one of `paths` that shows moving things where they shall stay; None is the best exposed.
            hdr: Whether `out` shall be brighter than white where the scene was, on screens that can: JPEG becomes Ultra
                HDR, AVIF and HEIC are coded as PQ, TIFF gets the radiance.

        Raises:
            OSError, ValueError: As `read_exposures`, `improve`, `fuse` and `write_image`.
        """
        shots = [Path(path) for path in paths]
        scene = Scene(Path(out).stem, shots, out=Path(out), metadata_from=metadata_from, reference=reference)
        [end] = fuse_scenes([scene], lambda: self, align, deghost, hdr=hdr)
        if end.error:
            raise end.error


class End(NamedTuple):
    """How a scene ended."""

    scene: Scene
    error: Exception | None = None  # a `UserError`, `OSError` or `Defect`; None: its picture is written
    reference: Path | None = None  # with deghosting: the exposure whose moving things the picture shows


class Stack(NamedTuple):
    """A scene's exposures, read and improved."""

    images: list[np.ndarray]
    metadata: Metadata
    stops: list[float] | None
    reference: Path | None


def fuse_scenes(
    scenes: Sequence[Scene],
    load: Callable[[], Fuser],
    align: str | None = None,
    deghost: bool = False,
    max_pixels: int | None = None,
    hdr: bool = False,
    quality: int = QUALITY,
    one_look: bool = False,
) -> Iterator[End]:
    """Yields how each scene ended, when its picture is written or when it failed; the other scenes go on.

    While one scene is fused, the next is read and the last is written: memory holds up to two scenes and a result.

    Args:
        scenes: each has its `out`.
        load: returns the Fuser; called once, while the first scene is read; never if there is no scene.
        align, deghost, hdr: as `Fuser.fuse_files`.
        max_pixels, quality: as for `image.read_photo` and `image.write_image`.
        one_look: whether the scenes are parts of one panorama or series: a decision for all of them, so that brightness
            and contrast agree. Then each scene is read twice.

    Raises:
        ValueError: as `load`; or there can be no decision for all.
    """
    if not scenes:
        return
    stacks = partial(_stacks, align=align, deghost=deghost, max_pixels=max_pixels, hdr=hdr)
    decisions: list[Decision | None] = [None] * len(scenes)
    with ThreadPoolExecutor(1) as loader, ThreadPoolExecutor(1) as writer:
        loading = loader.submit(load)
        if one_look:
            network, copies = loading.result().network, list[tuple[Scene, SmallCopy]]()
            if not isinstance(network, DecidingNetwork):
                raise UserError("one look for many scenes needs weights of DeepFuse_pyramid, such as deepfuse.onnx")
            for scene, stack in counted("looking", stacks(scenes), len(scenes)):
                if isinstance(stack, Exception):
                    yield End(scene, stack)
                else:
                    copies.append((scene, network.small_copy(stack.images, stack.stops, len(scenes))))
                    stack.images.clear()
            scenes = [scene for scene, _ in copies]
            decisions = [*network.decide_together([small for _, small in copies])] if copies else []
            del copies
        written: list[tuple[End, Future]] = []
        for (scene, stack), decision in zip(stacks(scenes), decisions, strict=True):
            write = None  # frees the last picture's memory before this one is fused
            if isinstance(stack, Exception):
                yield End(scene, stack)
                continue
            try:
                write = _result(loading.result(), scene, stack, decision, hdr, quality)
            except Exception as error:
                yield End(scene, clear(error))
                continue
            finally:
                stack.images.clear()
            yield from (done(*one) for one in written)  # waits for the disk: at most one picture is being written
            written = [(End(scene, None, stack.reference), writer.submit(write))]
        yield from (done(*one) for one in written)


def _stacks(
    scenes: Sequence[Scene], align: str | None, deghost: bool, max_pixels: int | None, hdr: bool
) -> Iterator[tuple[Scene, Stack | Exception]]:
    """Yields each scene with its stack, or with the error that there is none; the next one is read meanwhile.

    Whoever is done with a stack clears its list of images, which frees them.
    """

    def read(scene: Scene) -> Future:
        return reader.submit(read_exposures, scene.paths, scene.out, scene.metadata_from, max_pixels, hdr)

    with ThreadPoolExecutor(1) as reader:
        reading = [read(scene) for scene in scenes[:1]]
        for number, scene in enumerate(scenes):
            current = reading.pop()
            reading += [read(following) for following in scenes[number + 1 : number + 2]]
            reference = None
            try:
                images, metadata, stops = current.result()
                del current
                if len(scene.paths) > 1:  # exposures of one radiance map need no alignment
                    images, stops, reference = improve(scene, images, stops, align, deghost)
            except Exception as error:
                yield scene, clear(error)
                continue
            yield scene, Stack(images, metadata, stops, reference)
            images = []


def _result(
    fuser: Fuser, scene: Scene, stack: Stack, decision: Decision | None, hdr: bool, quality: int
) -> Callable[[], None]:
    """Returns a function that writes a scene's result, which is computed now: the fused picture, HDR or radiance.

    The list of images may be empty afterwards. Without a decision the network makes one for this scene alone.
    """
    images, metadata, stops, _ = stack
    out, suffix = scene.out, scene.out.suffix.lower()
    single = len(scene.paths) == 1  # a radiance map: what it holds beyond its exposures counts too
    if suffix in RADIANCE_SUFFIXES or hdr and suffix in (".tif", ".tiff"):
        light = own_light(scene.paths[0]) if single else scene_light(images, stops)
        bright = f", EV {math.log2(100) - min(stops):.1f} at ISO 100" if stops else ""
        one = f"as in {scene.paths[0].name}" if single else f"white in the darkest of {len(images)} exposures{bright}"
        return partial(write_radiance, out, light, metadata, f"linear light; 1 is {one}")
    if hdr and images[0].ndim == 2:
        raise UserError(f"{out}: gray pictures cannot become HDR in {suffix}, but in .exr, .hdr and .tif")
    fused = decision.develop(images) if decision else fuser.fuse(images, stops)
    if not hdr:
        return partial(write_image, out, fused, metadata, quality)
    size = light_size(*fused.shape[:2])
    light = own_light(scene.paths[0], size) if single else scene_light(images, stops, size)
    images.clear()  # frees the exposures' memory
    gain = gain_map(fused, light)
    if suffix in (".jpg", ".jpeg"):
        return partial(write_image, out, fused, metadata, quality, gain)
    return partial(write_pq, out, rendition(fused, gain), metadata, quality)


def own_light(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Returns the light of a radiance map that was read already, at least 0, at its own size or (h, w)."""
    light = np.maximum(finite(read_radiance(path, MAX_PIXELS)[0]), 0)
    return light if size is None else cv2.resize(light, size[::-1], interpolation=cv2.INTER_AREA)


def done(end: End, writing: Future) -> End:
    """Waits until a scene's picture is written; returns how it ended, with the error if writing failed."""
    try:
        writing.result()
    except Exception as error:
        return End(end.scene, clear(error))
    return end


def improve(
    scene: Scene, images: list[np.ndarray], stops: list[float] | None, align: str | None, deghost: bool
) -> tuple[list[np.ndarray], list[float] | None, Path | None]:
    """Returns (exposures, stops, reference): the exposures aligned and then deghosted, each if asked for.

    With `deghost`, `reference` is the exposure whose moving things are kept, and shots that cannot be aligned are left
    out, with a warning for each.

    Args:
        images, stops, align, deghost: As of `read_exposures` and `Fuser.fuse_files`.

    Raises:
        ValueError: As `align_exposures`; or the scene's reference is none of its exposures, or was left out.
    """
    kept = list(range(len(images)))
    if deghost and not align and unsteady(images):
        advice = "align them, as --handheld does, or things may be torn"
        warnings.warn(f"{scene.name}: its shots do not lie on each other: {advice}", stacklevel=2)
    if align:
        aligned = aligned_shots(scene.paths, images, align, deghost)
        kept = [k for k in kept if aligned[k] is not None]
        images = [image for image in aligned if image is not None]
        stops = [stops[k] for k in kept] if stops else None
    if not deghost:
        return images, stops, None
    number = None
    if scene.reference is not None:
        chosen = find_reference(scene.paths, scene.reference)
        if chosen not in kept:
            raise UserError(f"reference {scene.reference} cannot be aligned: name another")
        number = kept.index(chosen)
    images, number = remove_ghosts(images, number)
    return images, stops, scene.paths[kept[number]]


def aligned_shots(
    paths: Sequence[Path], images: Sequence[np.ndarray], align: str, leave_out: bool
) -> Sequence[np.ndarray | None]:
    """Returns the exposures aligned, see `align_exposures`; warns of each that is left out, None."""
    aligned = align_exposures(images, align, leave_out)
    for path, image in zip(paths, aligned, strict=True):
        if image is None:
            warnings.warn(f"{path}: left out, since it cannot be aligned", stacklevel=2)
    return aligned


def find_reference(paths: Sequence[Path], reference: str | os.PathLike) -> int:
    """Returns which of the exposures is the reference, which may be a bare name if only one of them has it.

    Raises:
        ValueError: It is none of them.
    """
    same = [k for k, path in enumerate(paths) if path.resolve() == Path(reference).resolve()]
    named = [k for k, path in enumerate(paths) if path.name == str(reference)]
    if not same and len(named) != 1:
        raise UserError(
            f"reference {reference} is none of the exposures that are fused: write it as there, such as {paths[0]}"
        )
    return (same or named)[0]


def read_exposures(
    paths: Sequence[str | os.PathLike],
    out: str | os.PathLike | None = None,
    metadata_from: str | os.PathLike | None = None,
    max_pixels: int | None = None,
    hdr: bool = False,
) -> tuple[list[np.ndarray], Metadata, list[float] | None]:
    """Returns the pictures of a scene (see `read_photo`), the metadata for the fused one, and the exposures in stops.

    The stops are None unless every file notes its exposure. The files are read two at a time; camera raw is developed
    with the white balance of the first. A single radiance map gives all exposures.

    Args:
        paths, out, metadata_from: As of `Scene`.
        max_pixels: Of an exposure, as for `image.read_photo`.
        hdr: Whether `out` is to hold HDR.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: There are fewer than two; a file is given twice, cannot be read, or is also `out`; or its size,
            type, orientation or colour profile is not that of the first.
    """
    if out is not None:
        check_suffix(out, hdr)
        for path in [*paths, metadata_from] if metadata_from else paths:
            if os.path.exists(path) and os.path.exists(out) and os.path.samefile(path, out):
                raise UserError(f"{out}: is one of the inputs and would be overwritten: name another output")
    white = None
    if paths:
        first = read_metadata(paths[0])
        if first.radiance and len(paths) == 1:
            radiance, kept = read_radiance(paths[0], max_pixels)
            try:
                images, stops = expose(radiance)
            except UserError as error:  # it is black
                raise UserError(f"{paths[0]}: {error}") from error
            return images, _described(kept, metadata_from), stops
        white = first.white
    files = [Path(path).resolve() for path in paths]
    for path, file in zip(paths, files, strict=True):
        if files.count(file) > 1:
            raise UserError(f"{path} is given twice")
    with ThreadPoolExecutor(2) as pool:  # two decoders are as fast as the disk, and need little memory
        reading = pool.map(read_photo, paths, itertools.repeat(max_pixels), itertools.repeat(white))
        photos = list(counted("reading", reading, len(paths)))
    if len(paths) < 2:
        raise UserError(f"fusing needs two or more exposures, got {len(paths)}: {', '.join(map(str, paths)) or 'none'}")
    first_image, first = photos[0]
    for path, (image, metadata) in zip(paths, photos, strict=True):
        for what, own, firsts in (
            ("size", size_in_words(image), size_in_words(first_image)),
            ("type", image.dtype, first_image.dtype),
            ("EXIF orientation", metadata.orientation, first.orientation),
        ):
            if own != firsts:
                raise UserError(f"{path}: {what} {own}, but {paths[0]} has {firsts}: exposures must agree")
        if metadata.icc != first.icc:
            raise UserError(f"{path}: another colour profile than {paths[0]}: convert the exposures to one")
    stops = [metadata.stops for _, metadata in photos if metadata.stops is not None]
    kept = _described(first, metadata_from)
    return [image for image, _ in photos], kept, stops if len(stops) == len(photos) else None


def _described(own: Metadata, path: str | os.PathLike | None) -> Metadata:
    """Returns the metadata of the file `path` (None: the pixels' own), but a profile that fits the pixels."""
    if path is None:
        return own
    other = read_metadata(path)
    if same_colours(other.icc, own.icc):
        return replace(other, icc=other.icc or own.icc)
    warnings.warn(f"{path}: its colour profile is not that of the exposures, which is kept", stacklevel=2)
    return replace(other, icc=own.icc)


def size_in_words(image: np.ndarray) -> str:
    """Returns such as "1024x669 in colour" (width x height) of a picture (H, W), (H, W, 3) or (H, W, 4)."""
    kind = {2: "gray", 3: "colour"}[image.ndim] + (" with alpha" if image.shape[2:] == (4,) else "")
    return f"{size_of(image)} in {kind}"


def as_array(image: object) -> np.ndarray:
    """Returns a picture that is an array; raises ValueError, with what to do, for anything else."""
    if isinstance(image, np.ndarray):
        return image
    library, kind = type(image).__module__.split(".")[0], type(image).__name__
    fix = f"give {ARRAYS[library]}" if library in ARRAYS else "cv2.imread gives None for what it cannot read"
    kind = f"{library} {kind}".removeprefix("builtins ")
    raise UserError(f"expected pictures as arrays, got {kind}: {fix}")


def check_exposures(images: Sequence[np.ndarray]) -> None:
    """Raises ValueError unless these are two or more (H, W[, 3 or 4]) uint8 or uint16 of one shape and dtype."""
    if len(images) < 2:
        raise UserError(f"fusing needs two or more exposures, got {len(images)}")
    shape, dtype = as_array(images[0]).shape, images[0].dtype
    if dtype not in (np.uint8, np.uint16) or shape[2:] not in ((), (3,), (4,)) or 0 in shape or len(shape) < 2:
        raise UserError(f"expected (H, W), (H, W, 3) or (H, W, 4) uint8 or uint16, got {shape} {dtype}")
    for image in images:
        if as_array(image).shape != shape or image.dtype != dtype:
            raise UserError(f"exposures must agree: the first is {shape} {dtype}, another {image.shape} {image.dtype}")
