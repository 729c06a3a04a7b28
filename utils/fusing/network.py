"""What a network offers to `Fuser`: `fuse`, from exposures to the picture; and how those fuse that decide small."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from utils.errors import UserError
from utils.fusing.blend import develop
from utils.fusing.colour import stops_for
from utils.pictures.pixels import shrink, to_float
from utils.stack.response import fit_response


class Network(Protocol):
    """A network on its device: `onnx.OnnxNetwork`, or a network of `tiles`."""

    def fuse(self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None) -> np.ndarray:
        """Returns the fused picture of exposures that agree in shape and type; as `Fuser.fuse`."""


class DecidingNetwork(ABC):
    """A network that decides on a small copy at which exposure each pixel is shown."""

    decision_pixels: int  # pixels of the small copy, at most
    max_gap: float  # as for `Response.expose`

    @abstractmethod
    def decide(self, exposures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns fused luminance (h, w) and weights (K, h, w) of sum 1, for luminance (K, h, w) float32 in [0, 1]."""

    def fuse(self, images: Sequence[np.ndarray], stops: Sequence[float] | None = None) -> np.ndarray:
        """Returns the fused picture of exposures that agree in shape and type; as `Fuser.fuse`.

        Raises:
            ValueError: The network gives values that are not finite.
        """
        pictures = [image[..., :3] if image.ndim == 3 else image for image in images]  # without alpha
        response = fit_response(pictures, stops)
        small = [to_float(shrink(picture, pixels=self.decision_pixels)) for picture in pictures]
        radiance = response.merge(small)
        y, weights = self.decide(response.expose(small, self.max_gap, radiance))
        if not (np.isfinite(y).all() and np.isfinite(weights).all()):
            raise UserError("the network gives values that are not finite: its weights are damaged")
        return develop(images, response, stops_for(y, radiance, response), radiance)
