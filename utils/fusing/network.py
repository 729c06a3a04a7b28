"""What a network offers to `Fuser`: `fuse`, from exposures to the picture; and how those fuse that decide small."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from utils.errors import UserError
from utils.fusing.blend import develop
from utils.fusing.colour import stops_for
from utils.pictures.pixels import luma, shrink, to_float
from utils.stack.response import Response, fit_response

EACH = 32  # pixels of a picture for each of its small copy, if that is more than decision_pixels: 2 to 8 megapixels
TOGETHER = 16  # small copies of full size that one decision may see, for its memory: more scenes get smaller ones
WILD = 10  # luminance that no network means: trained ones give -0.2 to 1.3, damaged ones give thousands


class Network(Protocol):
    """A network on its device: `onnx.OnnxNetwork`, or a network of `tiles`."""

    weights: str = "its file of weights"  # that it was read from, for errors

    def fuse(self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None) -> np.ndarray:
        """Returns the fused picture of exposures that agree in shape and type; as `Fuser.fuse`."""


class SmallCopy(NamedTuple):
    """A scene as a deciding network takes it."""

    shots: list[np.ndarray]  # their luminance, (h, w) float32 in [0, 1]
    response: Response
    radiance: np.ndarray  # (h, w) or (h, w, 3) BGR, from `Response.merge`


class Decision(NamedTuple):
    """At which exposure a scene is shown."""

    stops: np.ndarray  # (h, w) float32, of each pixel of the small copy
    scene: SmallCopy

    def develop(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the fused picture of the scene's shots at full size; it has their shape and dtype."""
        return develop(images, self.scene.response, self.stops, self.scene.radiance)


class DecidingNetwork(Network, ABC):
    """A network that decides on a small copy at which exposure each pixel is shown."""

    decision_pixels: int  # pixels of the small copy of usual pictures, at most
    growth: int = 4  # times as many has that of the largest pictures
    exposures: int  # as for `Response.expose`

    @abstractmethod
    def decide(self, exposures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns fused luminance (h, w) and weights (K, h, w) of sum 1, for luminance (K, h, w) float32 in [0, 1]."""

    def fuse(self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None) -> np.ndarray:
        """Returns the fused picture of exposures that agree in shape and type; as `Fuser.fuse`.

        Raises:
            ValueError: The network gives values that are not finite, or no luminance.
        """
        [decision] = self.decide_together([self.small_copy(images, stops)])
        return decision.develop(images)

    def small_copy(
        self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None, scenes: int = 1
    ) -> SmallCopy:
        """Returns what `decide_together` takes of one of `scenes` scenes; the shots are as for `Fuser.fuse`."""
        pictures = [image[..., :3] if image.ndim == 3 else image for image in images]  # without alpha
        response = fit_response(pictures, stops)
        height, width = pictures[0].shape[:2]
        own = int(np.clip(height * width // EACH, self.decision_pixels, self.growth * self.decision_pixels))
        pixels = min(own, TOGETHER * self.decision_pixels // scenes)
        small = [to_float(shrink(picture, pixels=pixels)) for picture in pictures]
        return SmallCopy([luma(picture) for picture in small], response, response.merge(small))

    def decide_together(self, scenes: Sequence[SmallCopy]) -> list[Decision]:
        """Returns the decisions of one or more scenes; they have one look, since the network sees them as one picture.

        The scenes stand side by side in their order. Every second one is mirrored: then the views of a panorama touch
        where they show the same.

        Raises:
            ValueError: The network gives values that are not finite or no luminance, or it sees the shots as they are
                and the scenes have different numbers of them.
        """
        seen = [scene.response.expose(scene.shots, self.exposures, scene.radiance) for scene in scenes]
        if len({len(x) for x in seen}) > 1:
            raise UserError("for one look, these weights need scenes with one number of shots")
        height, turns = max(x.shape[1] for x in seen), [(-1) ** place for place in range(len(scenes))]
        row = [
            np.pad(x[:, :, ::turn], ((0, 0), (0, height - x.shape[1]), (0, 0)), "edge")
            for x, turn in zip(seen, turns, strict=True)
        ]
        y, weights = self.decide(np.concatenate(row, 2))
        if not (np.abs(y).max() < WILD and np.isfinite(weights).all()):  # NaN is not below it either
            raise UserError(f"the network gives values that are not finite or no luminance: {self.weights} is damaged")
        parts = np.split(y, np.cumsum([x.shape[2] for x in seen])[:-1], 1)
        decisions = []
        for scene, part, turn in zip(scenes, parts, turns, strict=True):
            own = np.ascontiguousarray(part[: scene.radiance.shape[0], ::turn])
            decisions.append(Decision(stops_for(own, scene.radiance, scene.response), scene))
        return decisions
