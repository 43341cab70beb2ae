"""A detector in an ONNX file, run as it is: a teacher of whom nothing is asked but its answers."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ocr_ray.errors import WeightsError

PROBE_PX = 64
"""Side of the first picture that a net is tried on, where it does not fix it."""
ROUNDING = 1e-5
"""A quantised net's highest probability is 255 times a scale that has been rounded."""


class OnnxDetector(nn.Module):
    """A net whose one input are pictures `(N, 3, H, W)` and whose first output is their probability map.

    onnxruntime runs it, on a GPU where its build can, else on as many CPU threads as PyTorch has when this is made. It
    has no parameters in PyTorch's eyes, cannot be trained, and its normalisation is the caller's to know.

    Raises: WeightsError when the file cannot be run or answers a black picture by something else than its probability
        map, or when the package `onnxruntime` is not installed (extra `ocr-ray[onnx]`).
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as e:
            raise WeightsError(f"{path}: running ONNX needs onnxruntime: pip install 'ocr-ray[onnx]'") from e
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        able = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in able]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
            (given,) = self._session.get_inputs()
        except Exception as e:  # its errors have no class in common
            raise WeightsError(f"{path}: onnxruntime cannot run it: {' '.join(str(e).split())[:200]}") from e
        self._path, self._input = path, given.name
        sides = [side if isinstance(side, int) else PROBE_PX for side in given.shape[2:]]
        try:
            self.shrink_map(torch.zeros(1, 3, *sides))  # now, and not when trials have started
        except WeightsError:
            raise
        except Exception as e:
            raise WeightsError(f"{path}: takes no picture (1, 3, H, W): {' '.join(str(e).split())[:200]}") from e

    def shrink_map(self, images: Tensor) -> Tensor:
        """Probabilities `(N, H, W)` float32 of pictures `(N, 3, H, W)`, on their device.

        Raises: WeightsError when the net's first output is no probability map of its input's size.
        """
        answer = self._session.run(None, {self._input: np.ascontiguousarray(images.float().cpu().numpy())})[0]
        if answer.ndim == 2:  # of one picture, as OpenCV wants it
            answer = answer[None, None]
        wanted = (len(images), 1, *images.shape[2:])
        if answer.shape != wanted or not 0 <= answer.min() <= answer.max() <= 1 + ROUNDING:
            raise WeightsError(
                f"{self._path}: answered {answer.shape} from {answer.min():g} to {answer.max():g}, "
                f"expected probabilities {wanted}"
            )
        return torch.from_numpy(answer[:, 0]).to(images.device)
