"""DeepFuse_pyramid from an ONNX file of `run_export.py`, run by ONNX Runtime without PyTorch."""

import os
import threading
from pathlib import Path

import numpy as np

from utils.errors import UserError, optional
from utils.fusing.network import DecidingNetwork

INPUT, OUTPUTS = "exposures", ["fused", "weights"]  # names in the file
TRIAL = np.linspace(0, 1, 2 * 32 * 40, dtype=np.float32).reshape(2, 32, 40)  # exposures to try a file with
LONGEST, LONGEST_TRIAL = 600, 20  # seconds until a decision is ended: a damaged graph may have a loop without end


class OnnxNetwork(DecidingNetwork):
    """An exported network on the CPU."""

    def __init__(self, path: str | os.PathLike, device: str = "cpu", name: str | None = None):
        """Loads the file, whose network must be called `name` if that is given; `device` is "cpu" or "auto".

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: network or device are others; it is no file of `run_export.py`; ONNX Runtime is not installed.
        """
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.29 on it reports its use to Microsoft otherwise
        onnxruntime = optional("onnxruntime", str(path))  # here: not needed with a .pth file
        if device not in ("auto", "cpu"):
            raise UserError(f"an .onnx file is run on the CPU, got device {device!r}: use --device cpu or a .pth file")
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file of weights")
        options = onnxruntime.SessionOptions()
        options.enable_mem_pattern = False  # it pays only for repeated sizes, which are rare
        # The highest level would choose a layout that needs a fifth more memory and as much time.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.intra_op_num_threads = os.cpu_count() or 1  # 0 would pin threads to cores: forbidden in containers
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # leaves the cores to the reader and the writer
        options.log_severity_level = 4  # errors become exceptions anyway
        self._new_run = onnxruntime.RunOptions
        try:
            cpu = {"providers": ["CPUExecutionProvider"], "enable_fallback": 0}  # falling back, it would print lines
            self.session = onnxruntime.InferenceSession(str(path), options, **cpu)
            about = self.session.get_modelmeta().custom_metadata_map
            self.name, self.decision_pixels = about["name"], int(about["decision_pixels"])
            self.exposures = int(about["exposures"])
            if not (2**10 <= self.decision_pixels <= 2**26 and 0 <= self.exposures <= 16):
                raise ValueError("numbers that no network has")
            fused, weights = self._run(TRIAL, LONGEST_TRIAL)
            if fused.shape != TRIAL.shape[1:] or weights.shape != TRIAL.shape or not np.isfinite(fused).all():
                raise ValueError("it decides something else")
        except Exception as error:  # ONNX Runtime raises a dozen kinds for damaged files and other networks
            raise UserError(f"{path} is not a file that run_export.py wrote, or it is damaged") from error
        if name not in (None, self.name):
            raise UserError(f"{path} holds a {self.name}, expected a {name}: ask for model {self.name}")

    def decide(self, exposures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns fused luminance (h, w) and weights (K, h, w) of sum 1, for luminance (K, h, w) float32 in [0, 1].

        Raises:
            RuntimeError: memory is short, or the graph is damaged (as PyTorch raises).
        """
        try:
            return self._run(exposures, LONGEST)
        except Exception as error:  # ONNX Runtime's dozen kinds have no other common parent
            raise RuntimeError(f"ONNX Runtime: {error}") from error

    def _run(self, exposures: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns what `decide` does; raises after `longest` seconds."""
        options = self._new_run()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")  # at the end
        timer = threading.Timer(longest, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            fused, weights = self.session.run(OUTPUTS, {INPUT: exposures}, options)
        finally:
            timer.cancel()
        return fused, weights
