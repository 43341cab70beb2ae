"""The three recipes as typed, frozen configs; read from YAML and from `key=value`, with errors of one line.

A config file is one whole recipe: its `recipe` says which (`dml`, `cml` or `student`), and what it leaves out has the
default below, as the recipe's file in `configs/` says it. Dotted keys (`loss.dml.weight`, `optim.lr`) are the same in
files, on the command line, in search spaces and in MLflow.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ocr_ray.data.augment import AugmentConfig
from ocr_ray.data.copy_paste import CopyPasteConfig
from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.data.targets import TargetConfig
from ocr_ray.engine.evaluate import EvalConfig
from ocr_ray.engine.loop import RunConfig
from ocr_ray.engine.optim import OptimConfig
from ocr_ray.errors import ConfigError, in_one_line
from ocr_ray.losses.combined import CMLRecipeLoss, DMLRecipeLoss, StudentRecipeLoss
from ocr_ray.models.detector import DetectorConfig, teacher_config
from ocr_ray.settings import ClusterConfig, SweepConfig, TrackingConfig
from ocr_ray.typed import flatten, from_plain, read_yaml, with_values


@dataclass(frozen=True)
class ModelConfig:
    """A net that is trained, and where its weights start."""

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    weights: str | None = None
    """File to start from: ours, `.pdparams`, `.onnx`; absent: the reference's random initialisation."""
    model: str | None = None
    """Which sub-model of `weights` every student starts from: `Student`, `Student2` or `Teacher`. Absent: each from its
    own, else from the first of these that the file holds, and one that does not fit is an error: a net of another part
    is never taken unasked."""
    may_be_new: tuple[str, ...] = ()
    """Prefixes of names that the file need not hold, e.g. `head.thresh` for the released ONNX, or `neck` and `head`
    for a backbone. They keep their random initialisation, and are trained alone first (`run.new_parts_steps`)."""


@dataclass(frozen=True)
class TeacherConfig:
    """The frozen net of CML: a detector, or any ONNX file that answers pictures by a probability map of their size."""

    detector: DetectorConfig | None = None
    """Absent: read off the names and shapes in `weights`."""
    weights: str | None = None
    normalize: NormalizeConfig | None = None
    """What its pictures are normalised by. Absent: what its file says, or else ImageNet's, as for the students."""
    model: str | None = None
    """Which sub-model of `weights`: `Teacher`, `Student` or `Student2`. Absent: the first of these that it holds."""
    batch_stats: bool = False
    """True: as in the reference, where the frozen teacher normalises by batch statistics and its running statistics
    drift. False: in eval mode, so that its answer depends on one picture alone."""
    shared: bool = True
    """In a sweep the teacher looks at each picture once, and all trials read its answers, bit for bit those of a
    teacher of their own. False: each trial runs the teacher itself, as a single run always does."""
    store: str | None = None
    """Folder of those answers, or a URI such as `s3://bucket/folder`. Absent: `teacher-answers` in `ray.storage`."""
    store_mib: int = 20_480
    """Size the answers of one teacher may reach. Above it those are dropped that no running trial needs."""
    producers: int | None = None
    """Processes that compute answers. Absent: one for every four cores, or for every eight GPUs; at least one."""
    gpus_per_producer: float = 0.25
    """Where there are GPUs, the share of one that each producer gets."""

    def __post_init__(self) -> None:
        for key, value, least in (
            ("store_mib", self.store_mib, 0),
            ("producers", 1 if self.producers is None else self.producers, 1),
        ):
            if value < least:
                raise ConfigError(f"teacher.{key}: expected at least {least}, found {value}")
        if not 0 < self.gpus_per_producer <= 1:
            raise ConfigError(
                f"teacher.gpus_per_producer: expected more than 0 and at most 1, found {self.gpus_per_producer:g}"
            )


@dataclass(frozen=True)
class DataConfig:
    """Label files, and how pictures and target maps are made from them."""

    train: tuple[str, ...] = ()
    """Label files, one picture a line: `path<TAB>[{"transcription": ..., "points": [[x, y], ...]}, ...]`."""
    val: tuple[str, ...] = ()
    val_size: int | None = None
    """So many pictures of val, evenly spaced, where all of them would take too long; absent: all."""
    keep: tuple[str, ...] = ()
    """Label files of a second validation set, e.g. of the old domain, so that forgetting is seen: evaluated beside the
    first one each time, reported as `keep.hmean` and so on, and never used to choose."""
    keep_size: int | None = None
    """As `val_size`."""
    test: tuple[str, ...] = ()
    """Label files that training and selection never look at: the winner and the controls are evaluated on them once,
    at the very end."""
    root: str | None = None
    """Folder that the labels' paths are relative to. Absent: each label file's own folder."""
    ratios: tuple[float, ...] = ()
    """Share of each file in `train` that is used; absent: all of each."""
    mix: float | None = None
    """One number in the place of `ratios`, so that it can be searched: the first file of `train` is used whole, of each
    further one (old data mixed in) this share; 0 leaves them out. A larger share takes in a smaller one's pictures.
    Give `epoch_size` as well, or the epochs of trials differ in length."""
    batch_size: int = 8
    """Pictures a step and worker."""
    epoch_size: int | None = None
    """Pictures an epoch over all workers. Absent: every picture once. Evaluation, checkpoints and the scheduler of a
    sweep go by epochs, so a large set may want short ones and a small set long ones."""
    num_workers: int = 4
    """Loader processes of each worker; 0 loads in the worker itself."""
    cache_mib: int = 1024
    """Shared memory of each node (`/dev/shm`, at most a quarter of it) for decoded pictures, which all loaders of all
    trials there read; 0: none. Changes no picture. They stay for the next trial; whoever comes an hour after their last
    use drops them, and `rm -r /dev/shm/ocr_ray-decoded-*` does so at once."""
    on_device: bool = False
    """Loaders only decode and draw the geometry; the device that trains warps the pictures and draws the maps. For GPUs
    that wait for their loaders. Maps are the same, pixels differ by one of 255 where the device rounds otherwise."""
    max_failed: float = 0.01
    """A run stops when a larger share of its pictures could not be read."""
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)

    def __post_init__(self) -> None:
        for key, value in (
            ("batch_size", self.batch_size),
            ("epoch_size", self.epoch_size),
            ("val_size", self.val_size),
            ("keep_size", self.keep_size),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"data.{key}: expected at least 1, found {value}")
        if self.cache_mib < 0:
            raise ConfigError(f"data.cache_mib: expected at least 0, found {self.cache_mib}")
        if self.ratios and len(self.ratios) != len(self.train):
            raise ConfigError(
                f"data.ratios: expected one for each of the {len(self.train)} files of data.train, "
                f"found {len(self.ratios)}"
            )
        for ratio in self.ratios:
            if not 0 < ratio <= 1:
                raise ConfigError(f"data.ratios: expected more than 0 and at most 1, found {ratio:g}")
        if self.mix is not None:
            if not 0 <= self.mix <= 1:
                raise ConfigError(f"data.mix: expected a number from 0 to 1, found {self.mix:g}")
            if self.ratios:
                raise ConfigError("data.mix: expected nothing beside data.ratios, which says the shares file by file")
            if len(self.train) == 1:
                raise ConfigError("data.mix: expected a second file in data.train to mix in")

    def shares(self) -> tuple[float, ...]:
        """Of each file in `train`, the share that is used."""
        if self.mix is None:
            return self.ratios or (1.0,) * len(self.train)
        return tuple(self.mix if i else 1.0 for i in range(len(self.train)))


# Where the recipes differ in what they share: here as in their files in configs/, which give the reasons.
_teacher_model = partial(ModelConfig, detector=teacher_config())
_dml_optim = partial(OptimConfig, epochs=1200, weight_decay=0.0, eps=1.25e-9)
_cml_optim = partial(OptimConfig, weight_decay=6.25e-6, eps=1.25e-9)
_with_copy_paste = partial(DataConfig, augment=AugmentConfig(copy_paste=CopyPasteConfig(enabled=True)))
_dml_eval, _eval = partial(EvalConfig, every_epochs=20), partial(EvalConfig, every_epochs=5)


@dataclass(frozen=True)
class DMLConfig:
    """Two large nets that teach each other; the better one is the teacher of CML."""

    recipe: Literal["dml"] = "dml"
    student: ModelConfig = field(default_factory=_teacher_model)
    loss: DMLRecipeLoss = field(default_factory=DMLRecipeLoss)
    optim: OptimConfig = field(default_factory=_dml_optim)
    data: DataConfig = field(default_factory=_with_copy_paste)
    eval: EvalConfig = field(default_factory=_dml_eval)
    run: RunConfig = field(default_factory=RunConfig)
    ray: ClusterConfig = field(default_factory=ClusterConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass(frozen=True)
class CMLConfig:
    """Two light students that learn from a frozen teacher, from each other and from the labels."""

    recipe: Literal["cml"] = "cml"
    student: ModelConfig = field(default_factory=ModelConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loss: CMLRecipeLoss = field(default_factory=CMLRecipeLoss)
    optim: OptimConfig = field(default_factory=_cml_optim)
    data: DataConfig = field(default_factory=_with_copy_paste)
    eval: EvalConfig = field(default_factory=_eval)
    run: RunConfig = field(default_factory=RunConfig)
    ray: ClusterConfig = field(default_factory=ClusterConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass(frozen=True)
class StudentConfig:
    """One light net on labels alone; the quick way to fine-tune."""

    recipe: Literal["student"] = "student"
    student: ModelConfig = field(default_factory=ModelConfig)
    loss: StudentRecipeLoss = field(default_factory=StudentRecipeLoss)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    eval: EvalConfig = field(default_factory=_eval)
    run: RunConfig = field(default_factory=RunConfig)
    ray: ClusterConfig = field(default_factory=ClusterConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


WITHOUT_EFFECT = (
    *("ray", "sweep", "tracking", "run.cuda_graphs", "data.cache_mib", "data.augment.copy_paste.cache_mib"),
    *("data.keep", "data.keep_size", "data.test"),
    *("teacher.shared", "teacher.store", "teacher.store_mib", "teacher.producers", "teacher.gpus_per_producer"),
)
"""Keys and groups that no weight and no choice depends on: where a run happens, who watches, what is kept for a second
use, and sets that are only looked at."""
RecipeConfig = DMLConfig | CMLConfig | StudentConfig
RECIPES: tuple[type[DMLConfig], type[CMLConfig], type[StudentConfig]] = (DMLConfig, CMLConfig, StudentConfig)


def recipe_from_plain(plain: dict[str, Any], source: str) -> RecipeConfig:
    """The recipe that `plain["recipe"]` names. Raises: ConfigError naming `source` and the key."""
    classes = {cls().recipe: cls for cls in RECIPES}
    name = plain.get("recipe")
    if name not in classes:
        raise ConfigError(f"{source}: recipe: expected one of {', '.join(classes)}, found {name!r}")
    return from_plain(classes[name], plain, source)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RecipeConfig:
    """A recipe file with `key=value` overrides, which are YAML values (`optim.lr=5e-4`, `data.train=[a.txt,b.txt]`).

    Raises: ConfigError naming the file or the override, the key, and what was expected or the nearest key.
    """
    cfg = recipe_from_plain(read_yaml(path, "keys to values"), str(path))
    return override(cfg, overrides)


def override(cfg: RecipeConfig, overrides: Sequence[str]) -> RecipeConfig:
    """`cfg` with each `key=value` in place. Raises: ConfigError naming the override."""
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{text}: expected key=value, e.g. optim.lr=0.0005")
        try:
            values[key.strip()] = OmegaConf.to_container(OmegaConf.create(f"value: {value}"))["value"]  # type: ignore[call-overload,index]
        except OmegaConfBaseException as e:
            raise ConfigError(f"{text}: not a YAML value: {in_one_line(e)}") from e
        except YAMLError as e:  # several lines that say where
            raise ConfigError(f"{text}: not a YAML value: {' '.join(str(e).split())}") from e
    return with_values(cfg, values, "command line") if values else cfg


def to_yaml(cfg: RecipeConfig) -> str:
    """The whole recipe, every key with its value in force, as `load_config` reads it."""
    return OmegaConf.to_yaml(OmegaConf.structured(cfg))


def config_digest(cfg: RecipeConfig) -> str:
    """16 hexadecimal digits of what decides a run's numbers: all but where it runs, is searched and written down, and
    what is kept so that it need not be computed again."""
    deciding = {key: value for key, value in flatten(cfg).items() if decides_numbers(key)}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def decides_numbers(key: str) -> bool:
    """Whether a run may come out otherwise for another value of the dotted `key`."""
    return not any(key == idle or key.startswith(f"{idle}.") for idle in WITHOUT_EFFECT)


def with_paths_resolved(cfg: RecipeConfig, base: Path) -> RecipeConfig:
    """`cfg` with relative paths made absolute from `base`, since workers run in folders of their own."""

    def absolute(path: str) -> str:
        return str((base / path).resolve())

    data = dataclasses.replace(
        cfg.data,
        train=tuple(absolute(p) for p in cfg.data.train),
        val=tuple(absolute(p) for p in cfg.data.val),
        keep=tuple(absolute(p) for p in cfg.data.keep),
        test=tuple(absolute(p) for p in cfg.data.test),
        root=cfg.data.root and absolute(cfg.data.root),
    )
    student = dataclasses.replace(cfg.student, weights=cfg.student.weights and absolute(cfg.student.weights))
    ray = dataclasses.replace(cfg.ray, storage=absolute(cfg.ray.storage))
    cfg = dataclasses.replace(cfg, data=data, student=student, ray=ray)
    if isinstance(cfg, CMLConfig) and cfg.teacher.weights:
        cfg = dataclasses.replace(cfg, teacher=dataclasses.replace(cfg.teacher, weights=absolute(cfg.teacher.weights)))
    if isinstance(cfg, CMLConfig) and cfg.teacher.store and "://" not in cfg.teacher.store:
        cfg = dataclasses.replace(cfg, teacher=dataclasses.replace(cfg.teacher, store=absolute(cfg.teacher.store)))
    return cfg
