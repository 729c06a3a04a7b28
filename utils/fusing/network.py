"""What a network offers to `Fuser`: `fuse`, from exposures to the picture; and how those fuse that decide small."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from utils.errors import UserError
from utils.fusing.blend import blend
from utils.fusing.colour import colour, shoulder
from utils.pictures.pixels import luma, shrink, to_float
from utils.stack.exposure import complete


class Network(Protocol):
    """A network on its device: `onnx.OnnxNetwork`, or a network of `tiles`."""

    def fuse(self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None) -> np.ndarray:
        """Returns the fused picture of exposures that agree in shape and type; as `Fuser.fuse`."""


class DecidingNetwork(ABC):
    """A network that decides on a small copy how the exposures are blended at full size."""

    decision_pixels: int  # pixels of the small copy, at most
    max_gap: float  # stops between two neighbours in brightness, above which `complete` fills the gap

    @abstractmethod
    def decide(self, exposures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns fused luminance (h, w) and weights (K, h, w) of sum 1, for luminance (K, h, w) float32 in [0, 1]."""

    def fuse(self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None) -> np.ndarray:
        """Returns the fused picture of exposures that agree in shape and type; as `Fuser.fuse`.

        Raises:
            ValueError: The network gives values that are not finite.
        """
        pictures = [image[..., :3] if image.ndim == 3 else image for image in images]  # without alpha
        shots = [self._small(picture) for picture in pictures]
        exposures = complete([luma(q) for q in shots], self.max_gap, stops)
        small = [self._small(x.apply(pictures[x.shot])) if x.stops else shots[x.shot] for x in exposures]
        y, weights = self.decide(np.stack([luma(q) for q in small]))
        if not (np.isfinite(y).all() and np.isfinite(weights).all()):
            raise UserError("the network gives values that are not finite: its weights are damaged")
        if images[0].ndim == 2:
            fused = shoulder(y)
        else:
            fused = colour(y, small, weights, [luma(shots[x.shot]) for x in exposures])
        return blend(images, exposures, small, weights, fused)

    def _small(self, picture: np.ndarray) -> np.ndarray:
        """Returns the copy to decide on of a picture (H, W[, 3]): (h, w[, 3]) float32 in [0, 1]."""
        return to_float(shrink(picture, pixels=self.decision_pixels))
