"""Writes a DeepFuse_pyramid as ONNX, to fuse without PyTorch: python run_export.py [--weights W] [-o OUT]."""

import argparse
import copy
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch._higher_order_ops.scan import scan

from configs import get_export_args
from models import Network, WeightsError, fuse_model
from models.DeepFusePyramid import PyramidLevel
from utils import __version__
from utils.errors import UserError, exit_on_error, user_errors
from utils.files import replacing
from utils.fusing.onnx import INPUT, OUTPUTS

AXES = ("shots", "height", "width")


class Decision(torch.nn.Module):
    """The exported graph: luminance (K, h, w) in, fused luminance (h, w) and weights (K, h, w) out."""

    def __init__(self, model: Network):
        super().__init__()
        self.model = copy.deepcopy(model)
        for level in (part for part in self.model.modules() if isinstance(part, PyramidLevel)):
            level.encode_in_turn = functools.partial(encode_in_turn, level)  # type: ignore[method-assign]

    def forward(self, exposures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fused, log_weights = self.model(exposures[None, :, None])
        return fused[0, 0], log_weights[0].exp()


def encode_in_turn(level: PyramidLevel, seen: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the same as `PyramidLevel.encode_in_turn`, but its loop is kept in the graph, so that K is free."""

    def step(total: torch.Tensor, one: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        score, features = level.encode(*(x[None] for x in one))
        return total + features, score[0]

    channels: int = level.encoder[-1].out_channels  # type: ignore[assignment]
    none = F.pad(torch.zeros_like(seen[0][:, :1]), [level.depth] * 4).repeat(1, channels, 1, 1)
    total, scores = scan(step, none, [x.squeeze(0) for x in seen])
    return scores[None], total


def main(args: argparse.Namespace) -> None:
    with user_errors(WeightsError):
        model = fuse_model(weights=args.weights)
    export(model, args.output)
    print(f"Exported {args.weights}: {args.output} ({Path(args.output).stat().st_size / 1e6:.1f} MB)")


def export(model: Network, path: str) -> None:
    """Writes a network as ONNX for any number and size of exposures; its metadata holds what `Fuser` needs."""
    if model.halo is not None:
        raise UserError(
            f"{model.name} works at full size, in tiles that need PyTorch: only one that decides on a small copy "
            "can be exported"
        )
    import onnx

    any_size = {dim: torch.export.Dim(name) for dim, name in enumerate(AXES)}
    with torch.no_grad():  # a loop is exported only without gradients
        program = torch.onnx.export(
            Decision(model).eval(),
            (torch.rand(3, 100, 130),),  # sides that the pyramid must pad, so that padding is exported too
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=OUTPUTS,
            dynamic_shapes=(any_size,),
        )
    assert program is not None  # as always with dynamo=True
    exported = program.model_proto
    forget_code(exported.graph)
    for output in exported.graph.output:  # the exporter names them by formulas
        for dim, axis in zip(reversed(output.type.tensor_type.shape.dim), reversed(AXES), strict=False):
            dim.dim_param = axis
    about = {
        "version": __version__,
        "name": model.name,
        "decision_pixels": model.arch.decision_pixels,
        "exposures": model.arch.exposures,
    }
    onnx.helper.set_model_props(exported, {key: str(value) for key, value in about.items()})
    with replacing(path) as temporary:
        onnx.save(exported, temporary)


def forget_code(graph) -> None:
    """Removes the exporter's notes (source lines with this machine's folders) from a graph and the loops in it."""
    for part in (graph, *graph.input, *graph.output, *graph.initializer, *graph.node, *graph.value_info):
        del part.metadata_props[:]
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.HasField("g"):
            forget_code(attribute.g)


if __name__ == "__main__":
    with exit_on_error():
        main(get_export_args())
