"""The nets that a recipe runs together. Their attribute names are the prefixes of the reference's weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ocr_ray.models.db_head import Maps
from ocr_ray.models.detector import Detector
from ocr_ray.models.onnx_detector import OnnxDetector


@dataclass(frozen=True)
class Outputs:
    """What one forward gives the loss: each student's maps by name, `Student` first, and the teacher's answer."""

    students: dict[str, Maps]
    teacher_shrink: Tensor | None = None
    """`(N, H, W)`, without gradient; None where there is no teacher among the nets."""


class Single(nn.Module):
    """One net on labels alone."""

    def __init__(self, student: Detector) -> None:
        super().__init__()
        self.Student = student

    def forward(self, images: Tensor) -> Outputs:
        """Images as `Detector` takes them."""
        return Outputs({"Student": self.Student(images)})

    def students(self) -> dict[str, Detector]:
        """The nets that learn, by name."""
        return {"Student": self.Student}


def shrink_maps_alone(teacher: Detector | OnnxDetector, images: Tensor) -> Tensor:
    """`teacher.shrink_map(images)`, `(N, H, W)`, each picture for itself.

    A net in eval mode answers each picture without regard to the others, but kernels choose their order of summation
    by the batch's size, which moves the last bits: measured on a CPU, a batch of 8 against 8 batches of 1 moved
    probabilities by up to 2e-5. One at a time the answer is a function of the picture alone, and may be stored.
    """
    return torch.cat([teacher.shrink_map(image) for image in torch.split(images, 1)])


class DMLPair(nn.Module):
    """Two nets of one architecture that learn from labels, from each other, and in CML from a teacher's stored answers.

    Source: deep mutual learning, Zhang et al. 2018, arXiv 1706.00384.
    """

    def __init__(self, student: Detector, student2: Detector) -> None:
        super().__init__()
        self.Student = student
        self.Student2 = student2

    def forward(self, images: Tensor) -> Outputs:
        """Images as `Detector` takes them."""
        return Outputs({"Student": self.Student(images), "Student2": self.Student2(images)})

    def students(self) -> dict[str, Detector]:
        """The nets that learn, by name."""
        return {"Student": self.Student, "Student2": self.Student2}


class CMLTriple(nn.Module):
    """Two students and a frozen teacher, whose parameters get no gradient.

    The teacher is in eval mode, also while this module trains, and only its shrink branch runs. With `batch_stats` it
    follows the reference instead: it normalises by the batch's statistics in training, and all its running statistics
    move, so its answer to a picture depends on the pictures around it, and its weights in eval mode drift.

    Args: teachers_view makes of the students' pictures what the teacher takes, where its normalisation is another.
    Source: collaborative mutual learning, Du et al. 2021, arXiv 2109.03144 (PP-OCRv2), section 2.1.
    """

    def __init__(
        self,
        student: Detector,
        student2: Detector,
        teacher: Detector | OnnxDetector,
        batch_stats: bool = False,
        teachers_view: Callable[[Tensor], Tensor] = lambda images: images,
    ) -> None:
        super().__init__()
        self.Student = student
        self.Student2 = student2
        self.Teacher = teacher.requires_grad_(False)
        self.batch_stats = batch_stats
        self._teachers_view = teachers_view
        self.train(self.training)

    def train(self, mode: bool = True) -> "CMLTriple":
        """The students' mode; the teacher follows with `batch_stats` only."""
        super().train(mode)
        if not self.batch_stats:
            self.Teacher.eval()
        return self

    def forward(self, images: Tensor) -> Outputs:
        """Images as `Detector` takes them."""
        with torch.no_grad():
            seen = self._teachers_view(images)
            # The whole teacher where its statistics move: the threshold branch has some as well.
            teacher = self.Teacher(seen).shrink if self.batch_stats else shrink_maps_alone(self.Teacher, seen)
        return Outputs({"Student": self.Student(images), "Student2": self.Student2(images)}, teacher)

    def students(self) -> dict[str, Detector]:
        """The nets that learn, by name."""
        return {"Student": self.Student, "Student2": self.Student2}
