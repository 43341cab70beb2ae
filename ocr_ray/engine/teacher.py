"""A frozen teacher's answers as bits: what CML's loss asks of a teacher, and all that has to be kept of it.

Whether a batch is answered by a teacher among the nets or from a store, the same function of one picture answers it:
`prepared`, then `shrink_maps_alone`, then `teacher_target`.
"""

import zlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ocr_ray.data.batch import Batch
from ocr_ray.data.compact import PLACED, Loaded
from ocr_ray.data.normalize import NormalizeConfig, normalize
from ocr_ray.engine.graphs import record_shrink_map
from ocr_ray.losses.dila import teacher_target
from ocr_ray.models.detector import Detector
from ocr_ray.models.distillation import shrink_maps_alone
from ocr_ray.models.onnx_detector import OnnxDetector


class Teacher:
    """Answers pictures by where `net`, in eval mode, sees text with a probability above `threshold`.

    Args: graphs: on a GPU, pictures of the first one's shape are answered by replaying its kernels.
    """

    def __init__(
        self,
        net: Detector | OnnxDetector,
        normalize_cfg: NormalizeConfig,
        threshold: float,
        device: torch.device,
        precision: Literal["fp32", "bf16"] = "fp32",
        channels_last: bool = True,
        graphs: bool = False,
    ) -> None:
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._net = net.to(device=device, memory_format=memory_format).eval()  # type: ignore[call-overload]
        self._normalize, self._threshold, self.device = normalize_cfg, threshold, device
        self._precision, self._channels_last = precision, channels_last
        self._to_record = graphs and device.type == "cuda" and isinstance(net, Detector)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images `(N, 3, H, W)` uint8 as a batch holds them, to `packed` bits on the CPU."""
        ready = prepared(images, self._normalize, self.device, self._channels_last)
        if self._to_record:
            assert isinstance(self._net, Detector)
            record_shrink_map(self._net, ready[:1], self._precision)
            self._to_record = False
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            shrink = shrink_maps_alone(self._net, ready)
        return packed(teacher_target(shrink, self._threshold))


def prepared(images: Tensor, normalize_cfg: NormalizeConfig, device: torch.device, channels_last: bool) -> Tensor:
    """Pictures `(N, 3, H, W)` uint8 as the nets take them: normalised float32 on `device`."""
    ready = normalize(images.to(device, non_blocking=True), normalize_cfg)
    return ready.contiguous(memory_format=torch.channels_last) if channels_last else ready


def fingerprints_on(loaded: Loaded, kind: str) -> list[int]:
    """A number for each picture of a batch that nets on a device of that `kind` (`cpu`, `cuda`) look at.

    Where the device warps, it is that of what is handed on and of the kind of device: another kind may round otherwise,
    so that what it makes of the same pixels is another picture.
    """
    if isinstance(loaded, Batch):
        return fingerprints(loaded.images)
    warped_by = zlib.crc32(kind.encode())
    ends = [*(3 * loaded.sources[1:, PLACED]).long().tolist(), len(loaded.pixels)]
    numbers, begin = [], 0
    for end, place in zip(ends, fingerprints(loaded.sources[:, :PLACED]), strict=True):
        (picture,) = fingerprints(loaded.pixels[None, begin:end])
        numbers.append(_wrapped(31 * (31 * picture + place) + warped_by))
        begin = end
    return numbers


def fingerprints(pictures: Tensor) -> list[int]:
    """A number for each of `(N, ...)`, a multiple of 8 bytes each, on the CPU, that another one hardly shares.

    A weighted sum of its words, modulo 2^64: a few times as fast as a checksum of zlib's, and nobody is to be fooled.
    """
    words = pictures.flatten(1).contiguous().view(torch.int64)
    weights = torch.arange(words.shape[1], dtype=torch.int64) * 0x5851F42D4C957F2D + 0x14057B7EF767814F
    return [int(n) for n in (words * (weights | 1)).sum(dim=1)]


def _wrapped(number: int) -> int:
    """Into the 64 bits, with a sign, that the store has for it."""
    return (number + 2**63) % 2**64 - 2**63


def packed(masks: Tensor) -> Tensor:
    """Bool `(N, H, W)` to a bit a pixel, row by row: `(N, ceil(H * W / 8))` uint8 on the CPU."""
    return torch.from_numpy(np.packbits(masks.flatten(1).cpu().numpy(), axis=1))


def unpacked(bits: Tensor, height: int, width: int) -> Tensor:
    """The masks that were `packed`, bool `(N, height, width)` on the device of `bits`."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=bits.device)
    single = bits.unsqueeze(-1).bitwise_right_shift(shifts).bitwise_and(1).flatten(1)
    return single[:, : height * width].reshape(len(bits), height, width).bool()
