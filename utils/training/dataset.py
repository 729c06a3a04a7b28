"""Folders of photographs, and folders of exposure brackets, as samples to train on and pairs to validate with.

A training sample is a `Sample`: exposures to fuse, and exposures to judge the picture by. The judges show what the
network is not shown: other shots of the scene. For reconstruction a photograph is a stack of one, and its own judge:
the network doubles its features (2/K), so that it fuses the photograph with itself.

A sample is made from its `Draw` alone, which `Draws` hands out. So it is the same for any number of workers, and after
an interruption, without a random state to be kept.
"""

import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from utils.errors import UserError
from utils.evaluation import MIN_SIDE
from utils.pictures.image import IMAGE_SUFFIXES, list_images, read_image, walk_images
from utils.pictures.metadata import read_metadata
from utils.pictures.pixels import eight_bits, luma, to_float
from utils.pictures.scenes import Scene
from utils.stack.response import Response, fit_response
from utils.training import SHOTS
from utils.training.augment import (
    Shape,
    narrow,
    random_shape,
    random_symmetry,
    reduction,
    resize_to,
    simulate_shots,
    simulated_stops,
)

Hook = Callable[[Iterable], Iterable]  # shows progress, such as tqdm
Pictures = Sequence[np.ndarray] | np.ndarray  # (H, W) or (H, W, 3) BGR each


class Draw(NamedTuple):
    """What decides a sample: nothing else is random."""

    item: int  # the number of the photograph or scene
    seed: int  # the sample's own
    batch_seed: int  # which all samples of its batch share, so that they have one shape


class Sample(NamedTuple):
    """Windows of one scene, cut from the same place, float32 in [0, 1]; stacked ones have one more axis in front."""

    exposures: torch.Tensor  # (K, C, H, W), luminance (C = 1) or RGB (C = 3)
    judges: torch.Tensor  # (J, C, H, W)
    name: str = ""  # of the photograph or scene that it shows; of several, one on each line


def stack_alike(samples: Sequence[Sample]) -> list[Sample]:
    """Returns a batch, the samples of one step, as groups of one shape, stacked; a `DataLoader`'s collate_fn."""
    alike: dict[tuple, list[Sample]] = {}
    for sample in samples:
        alike.setdefault((sample.exposures.shape, sample.judges.shape), []).append(sample)
    columns = (zip(*group, strict=True) for group in alike.values())
    return [
        Sample(torch.stack(exposures), torch.stack(judges), "\n".join(names)) for exposures, judges, names in columns
    ]


TRIES = 20  # photographs tried before a sample is given up
MIN_SHARE = 0.25  # of crop_size that a photograph's short side must have: more than 4 times enlarged is no photograph
MIN_GAP = 0.08  # of mean luminance between two shots of a pair: closer ones are alike
UNDER, OVER = (10 / 255, 60 / 255), (150 / 255, 240 / 255)  # mean luminances of a pair to fuse
JUDGES = 6  # shots to judge by, at most: the darkest, the brightest, and four between; the loss costs by their square
SIMULATED = 0.15  # share of the samples that are made of photographs, where there are such beside the brackets
PAIR_MEANS = (45 / 255, 180 / 255)  # mean luminance of the shots that make a validation pair, if near ones exist


class Draws(Sampler):
    """Hands out the `Draw`s of an epoch's samples, in whole batches.

    `epoch` is set before each epoch; `done` is the number of its batches that were trained on before an interruption.
    """

    def __init__(self, items: int, samples: int, seed: int, batch_size: int = 1, rank: int = 0, ranks: int = 1):
        """Draws each of `items` things as often as the others, or once more; `batch_size` draws in a row are a batch.

        Args:
            samples: number per epoch, rounded up to whole batches; 0 draws each item once.
            rank, ranks: the number of this process, and how many there are; each gets its share of every batch.
        """
        self.items, self.seed, self.epoch, self.done = items, seed, 0, 0
        self.batch_size, self.rank, self.ranks = batch_size, rank, ranks
        self.batches = -(-(samples or items) // batch_size)

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((self.seed, self.epoch))
        samples = self.batches * self.batch_size
        rounds = -(-samples // self.items)
        order = np.concatenate([rng.permutation(self.items) for _ in range(rounds)])[:samples]
        seeds, shared = (rng.integers(2**62, size=count) for count in (samples, self.batches))
        draws = list(map(Draw, order.tolist(), seeds.tolist(), shared.repeat(self.batch_size).tolist()))
        mine = range(self.rank, self.batch_size, self.ranks)
        return (draws[batch * self.batch_size + i] for batch in range(self.done, self.batches) for i in mine)

    def __len__(self) -> int:
        return (self.batches - self.done) * len(range(self.rank, self.batch_size, self.ranks))


def start_worker(worker: int) -> None:
    """Gives a DataLoader's worker one thread, since the user has chosen how many workers are busy.

    The worker ignores signals to stop: they are for the process that trains, which ends its workers.
    """
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def hold_out(items: Sequence, count: int, seed: int) -> tuple[list, list]:
    """Returns (train, held out): `count` of the items, chosen by the seed, are held out, but never all."""
    if count >= len(items):
        found = f"found {len(items)} to train on, of which {count} are held out for validation"
        raise UserError(f"{found}: add some, or set --val_fraction 0")
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[i] for i in sorted(order[count:])], [items[i] for i in sorted(order[:count])]


class Fusing(NamedTuple):
    """How samples to fuse are made, of whatever scenes."""

    exposures: int = 0  # as for `Response.expose`
    hidden: bool = True  # judge by shots that the network is not shown, too; otherwise by those that it is shown
    shots: Sequence[int] = SHOTS  # numbers of shots to show, each as likely as the others
    patches: bool = False  # as `patch` in `Shape`

    def shape(self, crop_size: int, batch_seed: int) -> Shape:
        """Returns the shape of all samples of a batch, see `random_shape`."""
        return random_shape(crop_size, np.random.default_rng(batch_seed), self.shots, self.patches)

    def sample(self, shots: Pictures, judges: Pictures, name: str = "", response: Response | None = None) -> Sample:
        """Returns a sample of shots and judges, uint8 each; the network sees them as when they are fused.

        Without the shots' `response` it is fitted to what the sample shows of them.
        """
        judging = np.stack([luma(picture) for picture in (judges if self.hidden else shots)])
        if not self.exposures:
            seen = np.stack([luma(shot) for shot in shots])
        else:
            seen = (response or fit_response([*shots])).expose([*shots], self.exposures)
        return Sample(torch.from_numpy(seen)[:, None], torch.from_numpy(judging)[:, None], name)


# Photographs


def find_photographs(folders: Sequence[str | os.PathLike], progress: Hook = iter) -> list[str]:
    """Returns the paths of the photographs in folders and all folders below, sorted; empty files are left out.

    Raises:
        FileNotFoundError: there is no such folder, or no photograph in them.
    """
    paths = [str(path) for folder in folders for path in list_images(folder, recursive=True)]
    paths = [path for path in progress(paths) if not os.path.isfile(path) or os.path.getsize(path)]
    if not paths:
        raise FileNotFoundError(
            f"no photograph in {', '.join(map(str, folders))} or below: looked for {', '.join(IMAGE_SUFFIXES)}"
        )
    return paths


class Photographs(Dataset):
    """Random windows of photographs, decoded when they are asked for."""

    def __init__(self, paths: Sequence[str], crop_size: int, image_channels: int = 1, fusing: Fusing | None = None):
        """Takes the photographs' paths, from `find_photographs`; none is opened yet.

        Args:
            crop_size: side of the square windows, see `random_shape` for those with `fusing`. Smaller photographs are
                enlarged, but not more than 4 times.
            image_channels: 1 for luminance, 3 for RGB.
            fusing: make exposures of each to fuse (luminance only), from windows at any scale.
        """
        self.paths = np.array(paths)  # one block of memory: forked workers do not copy it
        self.crop_size, self.image_channels, self.fusing = crop_size, image_channels, fusing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw) -> Sample:
        """Returns the sample of a draw; a photograph that cannot be used is named in a warning and replaced.

        Raises:
            ValueError: none of TRIES photographs could be used.
        """
        item, seed, batch_seed = draw
        rng = np.random.default_rng(seed)
        shape = self.fusing and self.fusing.shape(self.crop_size, batch_seed)
        problems = []
        for _ in range(TRIES):
            try:
                window = self._window(self.paths[item], shape, rng)
                break
            except (UserError, OSError) as error:
                problems.append(error)
                item = rng.integers(len(self.paths))
        else:
            raise UserError(f"none of {TRIES} photographs could be used; the last one: {problems[-1]}")
        for problem in problems:
            warnings.warn(f"skipped: {problem}", stacklevel=2)
        turned = random_symmetry(np.moveaxis(window, -1, 0), rng, shape.upright if shape else None)
        y = np.ascontiguousarray(turned, np.float32)  # (C, H, W)
        if self.fusing is None or shape is None:
            photograph = torch.from_numpy(y)[None]
            return Sample(photograph, photograph, name=str(self.paths[item]))
        stops = simulated_stops(max(JUDGES - 1, shape.shots), rng)
        *shots, photograph = simulate_shots(y[0], [*stops, 0.0], rng)
        judges = [*shots[:2], photograph, *reversed(shots[2:])][:JUDGES]  # the last ones are not shown
        return self.fusing.sample(shots[: shape.shots], judges, str(self.paths[item]))

    def _window(self, path: str, shape: Shape | None, rng: np.random.Generator) -> np.ndarray:
        """Returns (H, W, C) float32 in [0, 1]: a square of crop_size, or what the shape asks for."""
        metadata = read_metadata(path)
        width, height = metadata.size if metadata.orientation < 5 else metadata.size[::-1]
        if min(height, width) < self.crop_size * MIN_SHARE:
            raise UserError(f"{path} is {width}x{height}, too small for crops of {self.crop_size}: reduce --crop_size")
        size, window = (shape or Shape(1, self.crop_size, False, patch=True)).window(height, width, rng)
        picture = resize_to(read_window(path, (height, width), window, size), size)
        return luma(picture)[..., None] if self.image_channels == 1 else to_float(picture[..., ::-1])


class SimulatedPairs:
    """Whole photographs as simulated pairs, the same ones each time: iterates over `(name, pair, judges)`."""

    def __init__(self, numbered: Sequence[tuple[int, str]], seed: int):
        """Takes photographs, each with a number that decides, together with the seed, what is simulated of it."""
        self.numbered, self.seed = numbered, seed

    def __iter__(self) -> Iterator[tuple[str, list[np.ndarray], list[np.ndarray]]]:
        """Yields luminance (H, W) uint8, see `narrow`; an unusable photograph is named in a warning and skipped."""
        for number, path in self.numbered:
            try:
                y = to_float(narrow(eight_bits(luma(read_image(path)))))
                if min(y.shape) < MIN_SIDE:
                    raise UserError(f"{path}: its short side is {min(y.shape)}, expected at least {MIN_SIDE} pixels")
            except (UserError, OSError) as error:
                warnings.warn(f"skipped: {error}", stacklevel=2)
                continue
            rng = np.random.default_rng((self.seed, number))
            under, over, photograph = simulate_shots(y, [*simulated_stops(2, rng), 0.0], rng)
            yield Path(path).stem, [under, over], [under, photograph, over]


# Exposure brackets


@dataclass(frozen=True)
class Bracket:
    """The shots of one scene, the darkest first: `means` are their mean luminances in [0, 1]."""

    folder: Path
    paths: tuple[Path, ...]
    size: tuple[int, int]  # height, width
    means: tuple[float, ...]
    cached: tuple[np.ndarray | None, ...]  # (H, W, 3) BGR uint8, None where there was no room for it

    def cut(self, number: int, window: tuple[slice, slice], size: tuple[int, int]) -> np.ndarray:
        """Returns a shot in a window, at (height, width), (H, W, 3) BGR uint8, from memory or from its file."""
        shot = self.cached[number]
        if shot is None:
            return resize_to(eight_bits(read_window(self.paths[number], self.size, window, size)), size)
        return resize_to(shot[window], size)


def read_window(
    path: str | os.PathLike, size: tuple[int, int], window: tuple[slice, slice], target: tuple[int, int]
) -> np.ndarray:
    """Returns the window of a picture, (H, W, 3) BGR, to be resized; large JPEGs come at their `reduction`.

    Args:
        size: the picture's height and width, upright.
        window: of that picture, from `random_window`.
        target: the height and width that the window is to be resized to.
    """
    n = reduction(window[0].stop - window[0].start, target[0])
    image = read_image(path, shrink=n)
    if image.shape[:2] != tuple(-(-pixels // n) for pixels in size):
        n = 1  # no JPEG
    return image[tuple(slice(part.start // n, part.stop // n) for part in window)]


def read_brackets(folders: Sequence[str | os.PathLike], cache_mb: float = 512, progress: Hook = iter) -> list[Bracket]:
    """Returns the scenes in folders: every folder at or below them that holds two or more shots of one size.

    Every shot is decoded once, for its mean luminance; a broken shot and an unusable scene are named in a warning and
    left out.

    Args:
        cache_mb: shots kept in memory, in megabytes (three per megapixel and shot); the rest is read when needed.

    Raises:
        FileNotFoundError: there is no such folder, or no scene in it.
    """
    files = {inner: paths for folder in folders for inner, paths in walk_images(folder) if paths}
    brackets, room = [], cache_mb * 1e6
    for folder in progress(sorted(files)):
        shots = []  # mean luminance, path, picture
        for path in files[folder]:
            try:
                shot = eight_bits(read_image(path))
                shots.append((float(luma(shot).mean()), path, shot))
            except (UserError, OSError) as error:
                warnings.warn(f"skipped: {error}", stacklevel=2)
        shots.sort(key=lambda one: one[0])
        means, sizes = [mean for mean, *_ in shots], [shot.shape[:2] for *_, shot in shots]
        if reason := _unusable(sizes, means):
            warnings.warn(f"skipped the scene {folder}: {reason}", stacklevel=2)
            continue
        cached = []
        for *_, shot in shots:
            fits = shot.nbytes <= room
            room -= shot.nbytes if fits else 0
            cached.append(shot if fits else None)
        brackets.append(Bracket(folder, tuple(path for _, path, _ in shots), sizes[0], tuple(means), tuple(cached)))
    if not brackets:
        looked = f"looked for folders of two or more exposures ({', '.join(IMAGE_SUFFIXES)})"
        raise FileNotFoundError(f"no scene in {', '.join(map(str, folders))}: {looked}")
    return brackets


def _unusable(sizes: list[tuple[int, ...]], means: list[float]) -> str:
    """Returns why no pair can be drawn from shots of these sizes and mean luminances, or an empty string."""
    if len(sizes) < 2:
        return f"{len(sizes)} readable exposure, expected two or more"
    if len(set(sizes)) > 1:
        smallest, largest = (pick(sizes, key=np.prod) for pick in (min, max))
        return f"its exposures have different sizes, such as {smallest[::-1]} and {largest[::-1]}"
    if min(sizes[0]) < MIN_SIDE:
        return f"its short side is {min(sizes[0])}, expected at least {MIN_SIDE} pixels"
    if max(means) - min(means) < MIN_GAP:
        return f"its exposures are alike (mean luminances from {min(means):.2f} to {max(means):.2f})"
    return ""


class BracketStacks(Dataset):
    """Windows of an under-, an over-exposed and further shots of a scene, cut from the same place, at any scale."""

    def __init__(
        self,
        brackets: Sequence[Bracket],
        crop_size: int,
        simulated: Photographs | None = None,
        fusing: Fusing | None = None,
    ):
        """Takes scenes that can give such windows, from `read_brackets`.

        Args:
            crop_size: the largest windows have as many pixels as this square, see `random_shape`. They show anything
                from that many pixels of the scene to all of it.
            simulated: photographs with the same crop_size and `fusing`, to take a share SIMULATED of the samples from:
                more kinds of scene than there are brackets of.

        Raises:
            ValueError: a scene is too small, even enlarged 4 times.
        """
        self.brackets, self.crop_size, self.simulated = list(brackets), crop_size, simulated
        self.fusing = fusing or Fusing()
        self.responses: dict[tuple[int, ...], Response] = {}
        for bracket in brackets:
            height, width = bracket.size
            if min(height, width) < crop_size * MIN_SHARE:
                raise UserError(
                    f"{bracket.folder} is {width}x{height}, too small for crops of {crop_size}: reduce --crop_size"
                )

    def __len__(self) -> int:
        return len(self.brackets)

    def __getitem__(self, draw: Draw) -> Sample:
        """Returns the sample of a draw; of a scene with fewer shots than are to be fused, all are."""
        item, seed, batch_seed = draw
        rng = np.random.default_rng(seed)
        if self.simulated and rng.random() < SIMULATED:
            return self.simulated[Draw(int(rng.integers(len(self.simulated))), int(rng.integers(2**62)), batch_seed)]
        bracket = self.brackets[item]
        shape = self.fusing.shape(self.crop_size, batch_seed)
        numbers = draw_shots(bracket.means, shape.shots, rng)
        last, between = len(bracket.means) - 1, rng.permutation(len(bracket.means) - 2) + 1
        spread = sorted({0, *between[: JUDGES - 2].tolist(), last})
        size, window = shape.window(*bracket.size, rng)
        cut = {k: bracket.cut(k, window, size) for k in {*numbers, *spread}}
        shots, judges = [cut[k] for k in numbers], [cut[k] for k in spread]
        planes = np.moveaxis(np.stack(shots + judges), -1, 0)  # (3, K, H, W)
        pictures = np.ascontiguousarray(np.moveaxis(random_symmetry(planes, rng, shape.upright), 0, -1))
        shown, judging = np.split(pictures, [len(shots)])
        response = self._response(item, numbers) if self.fusing.exposures else None
        return self.fusing.sample(shown, judging, str(bracket.folder), response)

    def _response(self, item: int, numbers: Sequence[int]) -> Response:
        """Returns the response of these shots of a scene, fitted to the whole scene, as when one fuses; only once."""
        key, bracket = (item, *numbers), self.brackets[item]
        if key not in self.responses:
            whole = slice(0, bracket.size[0]), slice(0, bracket.size[1])
            self.responses[key] = fit_response([bracket.cut(k, whole, bracket.size) for k in numbers])
        return self.responses[key]


def draw_shots(means: Sequence[float], count: int, rng: np.random.Generator) -> list[int]:
    """Returns the numbers of an under- and an over-exposed shot and of others, of mean luminances `means` (ascending).

    The pair has mean luminances in UNDER and OVER, as usual and extreme pairs have, or the nearest ones; where these
    are closer than MIN_GAP it is the darkest and the brightest. Fewer than `count` come back where the scene has
    fewer.
    """
    under, over = (int(np.argmin(np.abs(np.subtract(means, rng.uniform(*bounds))))) for bounds in (UNDER, OVER))
    if means[over] - means[under] < MIN_GAP:
        under, over = 0, len(means) - 1
    others = rng.permutation([i for i in range(len(means)) if i not in (under, over)])
    return [under, over, *others[: count - 2].tolist()]


class WholePairs:
    """Validation pairs, read when needed: iterates over `(name, pair, judges)`."""

    def __init__(self, scenes: Sequence[Scene], hidden: bool = True):
        """Takes scenes of two paths, from `pairs_of` or `read_pairs`; `hidden`: all shots of their stack judge.

        Raises:
            FileNotFoundError: one of the files is not there.
        """
        self.scenes, self.hidden = list(scenes), hidden
        for path in (path for scene in scenes for path in scene.paths):
            if not path.is_file():
                raise FileNotFoundError(f"{path}: one of a pair to validate on is not there")

    def __iter__(self) -> Iterator[tuple[str, list[np.ndarray], list[np.ndarray]]]:
        """Yields the pair (H, W, 3) BGR and the judges' luminance (H, W), uint8, see `narrow`.

        Raises:
            OSError, ValueError: as `read_image`; or the shots of a scene differ in size.
        """
        for scene in self.scenes:
            first = scene.paths[0]
            shots = {path: eight_bits(read_image(path)) for path in (scene.stack if self.hidden else scene.paths)}
            for path, y in shots.items():
                if y.shape != shots[first].shape:
                    expected = shots[first].shape[1::-1]
                    raise UserError(f"{path} is {y.shape[1::-1]}, expected the size of {first}, {expected}")
            shots = {path: narrow(y) for path, y in shots.items()}
            yield scene.name, [shots[path] for path in scene.paths], [eight_bits(luma(shot)) for shot in shots.values()]


def pairs_of(brackets: Sequence[Bracket]) -> list[Scene]:
    """Returns a scene to fuse for each bracket: the two shots whose mean luminances are nearest to PAIR_MEANS."""
    scenes = []
    for bracket in brackets:
        under, over = (int(np.argmin(np.abs(np.subtract(bracket.means, mean)))) for mean in PAIR_MEANS)
        if under == over:
            under, over = 0, len(bracket.paths) - 1
        scenes.append(Scene(bracket.folder.name, (bracket.paths[under], bracket.paths[over]), bracket.paths))
    return scenes
