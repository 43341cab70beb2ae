"""From a config to what a run works with: nets with their weights, loss, data."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import assert_never

import torch
from torch import nn
from torch.utils.data import DataLoader

from ocr_ray.config import CMLConfig, DMLConfig, RecipeConfig, StudentConfig, TeacherConfig
from ocr_ray.data.batch import collate
from ocr_ray.data.compact import CompactDataset, Loaded, collate_compact
from ocr_ray.data.dataset import TrainDataset, TrainSampler
from ocr_ray.data.decoded import decoded_store
from ocr_ray.data.labels import Sample, read_label_files
from ocr_ray.data.loaders import EndsWith, loader_processes
from ocr_ray.data.normalize import NormalizeConfig, renormalize
from ocr_ray.engine.loop import Training
from ocr_ray.errors import ConfigError, DataError
from ocr_ray.model_card import FORMAT, ModelCard, load_detector
from ocr_ray.models.detector import Detector
from ocr_ray.models.distillation import CMLTriple, DMLPair, Single
from ocr_ray.models.onnx_detector import OnnxDetector
from ocr_ray.typed import flatten
from ocr_ray.weights.architecture import NOT_IN_SHAPES
from ocr_ray.weights.coverage import Coverage, is_under
from ocr_ray.weights.extract import sub_model_metadata
from ocr_ray.weights.load import SUB_MODELS, WeightsFile, load_file, read_weights
from ocr_ray.weights.onnx_in import ForeignNetError, onnx_metadata

TEACHERS = ("Teacher", "Student", "Student2")
"""Sub-models of a file that may serve as teacher, the first that is there."""
STEEPNESS = "head.k"
"""Training alone looks at it: another one than the file's is a choice, where other parts would give other answers."""
PERTURBATION = 0.01
"""Relative size of the noise that tells two identical students apart."""


@dataclass(frozen=True)
class BuiltModel:
    """A recipe's model, and what its starting weights gave."""

    model: Single | DMLPair | CMLTriple
    new_parts: frozenset[str]
    """Names of the parameters that a file of weights left random."""
    coverage: tuple[Coverage, ...]
    notes: tuple[str, ...] = ()
    teacher_normalize: NormalizeConfig | None = None
    """Of the teacher among the nets; None where there is none."""


@dataclass(frozen=True)
class LoadedTeacher:
    """The frozen net, the normalisation it was made for, and how its file covered it."""

    net: Detector | OnnxDetector
    normalize: NormalizeConfig
    coverage: tuple[Coverage, ...]
    notes: tuple[str, ...] = ()


def build_model(cfg: RecipeConfig, with_teacher: bool = True) -> BuiltModel:
    """The nets of a recipe with their starting weights, on the CPU; the same for the same config.

    Two students that start alike would stay alike, and mutual learning would be void: then the second one is
    perturbed, and a note says so.

    Args: with_teacher=False leaves the teacher of CML out, for a run that reads its answers; the students are the same.
    Raises: WeightsError for a file that does not fit; ConfigError where a CML config names no teacher, or where the
        students' file was made by another detector than `student.detector`, of the same shapes.
    """
    torch.manual_seed(cfg.run.seed)
    match cfg:
        case StudentConfig():
            student, new, coverage, notes = _student(cfg, "Student")
            return BuiltModel(Single(student), new, tuple(coverage), tuple(notes))
        case DMLConfig():
            students, new, coverage, notes = _pair(cfg)
            return BuiltModel(DMLPair(*students), new, tuple(coverage), tuple(notes))
        case CMLConfig():
            students, new, coverage, notes = _pair(cfg)
            if not with_teacher:
                return BuiltModel(DMLPair(*students), new, tuple(coverage), tuple(notes))
            teacher = load_teacher(cfg.teacher)
            view = partial(renormalize, given=cfg.data.normalize, wanted=teacher.normalize)
            triple = CMLTriple(*students, teacher.net, batch_stats=cfg.teacher.batch_stats, teachers_view=view)
            notes += teacher.notes
            return BuiltModel(triple, new, (*coverage, *teacher.coverage), tuple(notes), teacher.normalize)
        case _:
            assert_never(cfg)


def load_teacher(cfg: TeacherConfig) -> LoadedTeacher:
    """The frozen net; only its shrink map is asked for, so its file need not hold `head.thresh`.

    An ONNX file that holds none of the nets that are known here is run by onnxruntime, and a note says so.

    Raises: ConfigError when no file is named, or when the file's architecture is not `cfg.detector`; WeightsError when
        it cannot be read or run, or would have to follow the batches (`batch_stats`) and cannot.
    """
    if cfg.weights is None:
        raise ConfigError(
            "teacher.weights: expected a file; configs/ppocrv3_det_dml.yaml makes one, `ocr-ray weights` lists others"
        )
    path = Path(cfg.weights)
    try:
        file = read_weights(path)
    except ForeignNetError as unknown:
        return _run_as_it_is(path, cfg, unknown)
    model = file.pick(cfg.model, TEACHERS)
    teacher, card, coverage = load_detector(path, model or None)
    if cfg.detector is not None and card.detector != cfg.detector:
        raise ConfigError(f"teacher.detector: {path} holds another architecture: {card.detector}")
    return LoadedTeacher(teacher, cfg.normalize or card.normalize, (coverage,))


def _run_as_it_is(path: Path, cfg: TeacherConfig, unknown: ForeignNetError) -> LoadedTeacher:
    net = OnnxDetector(path)
    for key, wanted in (("batch_stats", cfg.batch_stats), ("detector", cfg.detector), ("model", cfg.model)):
        if wanted:
            raise ConfigError(f"teacher.{key}: expected nothing for a file that onnxruntime runs as it is: {unknown}")
    metadata = onnx_metadata(path)
    if metadata.get("format") == FORMAT:
        card = ModelCard.from_metadata(metadata, str(path))
        note = f"the teacher {path.name} was exported here; onnxruntime runs it as it is"
        return LoadedTeacher(net, cfg.normalize or card.normalize, (), (note,))
    note = f"the teacher {path.name} is none of the nets known here; onnxruntime runs it as it is"
    return LoadedTeacher(net, cfg.normalize or NormalizeConfig(), (), (note,))


def read_train(cfg: RecipeConfig) -> list[Sample]:
    """The samples of `data.train`. Raises: DataError, ConfigError when no file is named."""
    return _read(cfg, "train", cfg.data.train, cfg.data.shares())


def read_val(cfg: RecipeConfig) -> list[Sample]:
    """The samples of `data.val`, or `data.val_size` of them. Raises: DataError, ConfigError when no file is named."""
    return _spread(_read(cfg, "val", cfg.data.val), cfg.data.val_size)


def read_keep(cfg: RecipeConfig) -> list[Sample]:
    """The samples of `data.keep`, or `data.keep_size` of them; none where no file is named. Raises: DataError."""
    return _spread(_read(cfg, "keep", cfg.data.keep), cfg.data.keep_size) if cfg.data.keep else []


def read_test(cfg: RecipeConfig) -> list[Sample]:
    """The samples of `data.test`; none where no file is named. Raises: DataError."""
    return _read(cfg, "test", cfg.data.test) if cfg.data.test else []


def build_training(
    cfg: RecipeConfig, built: BuiltModel, device: torch.device, rank: int = 0, world_size: int = 1
) -> Training:
    """Model on its device, data dealt to this rank.

    Raises: DataError, ConfigError as `read_train` and `read_val`.
    """
    memory_format = torch.channels_last if cfg.run.channels_last else torch.contiguous_format
    model = built.model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    samples, val = read_train(cfg), read_val(cfg)
    sampler = TrainSampler(
        len(samples), cfg.data.epoch_size, cfg.data.batch_size, cfg.run.seed, rank=rank, world_size=world_size
    )
    store = decoded_store(cfg.data.cache_mib)
    dataset = TrainDataset(samples, cfg.data.augment, cfg.data.targets, cfg.run.seed, store)
    loader: DataLoader[Loaded] = DataLoader(
        CompactDataset(dataset) if cfg.data.on_device else dataset,  # type: ignore[arg-type]  # collated
        batch_sampler=sampler,
        collate_fn=collate_compact if cfg.data.on_device else collate,
        num_workers=cfg.data.num_workers,
        persistent_workers=cfg.data.num_workers > 0,
        pin_memory=device.type == "cuda",
        multiprocessing_context=loader_processes() if cfg.data.num_workers > 0 else None,
        worker_init_fn=EndsWith(),
    )
    return Training(
        model=model,
        loss=cfg.loss,
        optim=cfg.optim,
        run=cfg.run,
        eval=cfg.eval,
        normalize=cfg.data.normalize,
        loader=loader,
        sampler=sampler,
        val=val,
        keep=read_keep(cfg),
        device=device,
        batch_shape=(cfg.data.batch_size, 3, cfg.data.augment.crop_height, cfg.data.augment.crop_width),
        max_failed=cfg.data.max_failed,
        new_parts=built.new_parts,
        rank=rank,
        world_size=world_size,
    )


def _spread(samples: list[Sample], size: int | None) -> list[Sample]:
    """So many of them, evenly spaced; all where that is absent."""
    size = min(size or len(samples), len(samples))
    return [samples[i * len(samples) // size] for i in range(size)]


def _read(cfg: RecipeConfig, key: str, files: tuple[str, ...], shares: tuple[float, ...] = ()) -> list[Sample]:
    """Args: shares of the files, all of each when absent; a file of which nothing is wanted is not read."""
    if not files:
        raise ConfigError(f"data.{key}: expected a label file, e.g. data.{key}=labels/{key}_label.txt")
    root = Path(cfg.data.root) if cfg.data.root else None
    wanted = [(Path(f), share) for f, share in zip(files, shares or (1.0,) * len(files), strict=True) if share]
    samples = read_label_files([f for f, _ in wanted], [share for _, share in wanted], root, cfg.run.seed)
    if not samples:
        raise DataError(f"data.{key}: {', '.join(files)}: no picture is left")
    return samples


def _student(cfg: RecipeConfig, name: str) -> tuple[Detector, frozenset[str], list[Coverage], list[str]]:
    """One student, and those of its parameters that a file left random; none where no file was given."""
    wanted = cfg.student
    detector = Detector(wanted.detector)
    if wanted.weights is None:
        return detector, frozenset(), [], []
    file = read_weights(Path(wanted.weights))
    taken = file.pick(wanted.model, (name, *SUB_MODELS))
    coverage = load_file(detector, file, name, taken, wanted.may_be_new, keys="student")
    notes = _hold_against_card(cfg, file, taken, coverage)
    parameters = {n for n, _ in detector.named_parameters()}
    return detector, frozenset(f"{name}.{n}" for n in parameters & set(coverage.new)), [coverage], notes


def _hold_against_card(cfg: RecipeConfig, file: WeightsFile, taken: str, coverage: Coverage) -> list[str]:
    """Notes on what the card of a student's file says and the config does not; none for a file without a card.

    Raises: ConfigError when the card's detector answers otherwise than `student.detector`, arrays and all.
    """
    metadata = sub_model_metadata(file, taken)
    card = ModelCard.from_metadata(metadata, str(file.path))
    notes = []
    said, wanted = flatten(card.detector), flatten(cfg.student.detector)
    for key in NOT_IN_SHAPES if "detector" in metadata else ():
        used = any(is_under(name, (key.split(".")[0],)) for name in coverage.matched)
        if not used or key not in said or key not in wanted or said[key] == wanted[key]:
            continue
        if key != STEEPNESS:
            raise ConfigError(
                f"student.detector.{key}: expected {_yaml(said[key])} as in the card of {file.path} (detector.{key}), "
                f"found {_yaml(wanted[key])}"
            )
        notes.append(f"{file.path.name} was trained with detector.{key}={said[key]:g}, here it is {wanted[key]:g}")
    if "normalize" in metadata and card.normalize != cfg.data.normalize:
        notes.append(
            f"{file.path.name} was trained on pictures normalised by {_normalization(card.normalize)} (its card), and "
            f"is given them by {_normalization(cfg.data.normalize)} (data.normalize)"
        )
    return notes


def _normalization(cfg: NormalizeConfig) -> str:
    return f"mean {list(cfg.mean)}, std {list(cfg.std)}"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pair(cfg: RecipeConfig) -> tuple[tuple[Detector, Detector], frozenset[str], list[Coverage], list[str]]:
    student, new, coverage, notes = _student(cfg, "Student")
    student2, new2, coverage2, notes2 = _student(cfg, "Student2")
    notes = list(dict.fromkeys([*notes, *notes2]))
    if _identical(student, student2):
        _perturb(student2)
        notes.append(
            f"Student and Student2 start from the same weights and would never differ: "
            f"Student2's kernels are perturbed by {PERTURBATION:.0%}"
        )
    return (student, student2), new | new2, [*coverage, *coverage2], notes


def _identical(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@torch.no_grad()
def _perturb(net: nn.Module) -> None:
    for parameter in net.parameters():
        if parameter.ndim > 1:
            parameter.add_(torch.randn_like(parameter) * parameter.std() * PERTURBATION)
