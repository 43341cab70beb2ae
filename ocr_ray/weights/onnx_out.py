"""A detector as an ONNX graph: from pictures of any size to their probability maps."""

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.errors import WeightsError
from ocr_ray.models.detector import Detector

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "x", "maps"
OPSET = 13
"""Known to onnxruntime from 1.6 on, and to OpenCV's dnn."""
TOLERANCE = 1e-4
"""By which a probability may differ from PyTorch's."""


class _Served(nn.Module):
    """The shrink map as readers of PP-OCR's files expect it, `(N, 1, H, W)`, or of one picture, `(H, W)`.

    Args: fed is what the reader normalises pictures by, where that is not what the net was trained with. The change is
        made to the pictures and not folded into the first convolution, whose zeros beyond the border mean the mean.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, detector: Detector, own: NormalizeConfig, fed: NormalizeConfig, one: bool) -> None:
        super().__init__()
        self.detector, self._changes, self._one = detector, own != fed, one
        means, stds = (
            [torch.tensor(getattr(c, what), dtype=torch.float64) for c in (own, fed)] for what in ("mean", "std")
        )
        self.register_buffer("scale", (stds[1] / stds[0]).float().view(1, 3, 1, 1))
        self.register_buffer("shift", ((means[1] - means[0]) / stds[0]).float().view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self._changes:
            images = images * self.scale + self.shift
        # Its own check of the shape would be traced as a constant.
        features = self.detector.neck(self.detector.backbone(images))
        maps = self.detector.head.binarize(features)
        return maps.squeeze(0) if self._one else maps.unsqueeze(1)


def to_onnx(
    detector: Detector, own: NormalizeConfig, fed: NormalizeConfig, metadata: Mapping[str, str], one: bool = False
) -> "ModelProto":
    """The graph of a detector in eval mode, batch, height and width open, BatchNorm folded into the convolutions.

    It is checked by onnx, and by onnxruntime against PyTorch on pictures of two sizes.

    Args: own is the normalisation that the net was trained with, fed the one that its pictures are going to have; one
        makes a graph of one picture at a time, whose answer has no axes but height and width.
    Raises: WeightsError when onnx or onnxruntime is not installed (extra `ocr-ray[onnx]`), or the check fails.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 - before any work is done
    except ImportError as e:
        raise WeightsError(f"writing ONNX needs {e.name}: pip install 'ocr-ray[onnx]'") from e
    served = _Served(detector, own, fed, one).eval()
    written = io.BytesIO()
    axes = {INPUT: {0: "N", 2: "H", 3: "W"}, OUTPUT: {0: "N", 2: "H", 3: "W"}}
    if one:
        axes = {INPUT: {2: "H", 3: "W"}, OUTPUT: {0: "H", 1: "W"}}
    with warnings.catch_warnings():
        # The exporter of traced nets, which needs no further package, is called the older one.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            served,
            (torch.zeros(1, 3, 64, 64),),
            written,  # type: ignore[arg-type]  # a file as well
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load_from_string(written.getvalue())
    graph.producer_name, graph.producer_version = "ocr_ray", ""
    for key, text in metadata.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, text
    onnx.checker.check_model(graph, full_check=True)
    _hold_against(served, graph, batch=1 if one else 2)
    return graph


@torch.no_grad()
def _hold_against(served: nn.Module, graph: "ModelProto", batch: int) -> None:
    import onnxruntime

    run = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for shape in ((1, 3, 96, 160), (batch, 3, 64, 32)):
        images: NDArray[np.float32] = random.normal(size=shape).astype(np.float32)
        (answer,) = run.run(None, {INPUT: images})
        wanted = served(torch.from_numpy(images)).numpy()
        off = float(np.abs(answer - wanted).max()) if answer.shape == wanted.shape else np.inf
        if not off <= TOLERANCE:
            raise WeightsError(f"the ONNX graph's answer to {shape} is off by {off:g}, expected at most {TOLERANCE:g}")
