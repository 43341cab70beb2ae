"""What a run needs to be run again, written down before it starts: its code, its packages, its data, its weights.

With the config (`config.yaml` beside it) that is all that decides its numbers on one machine.
"""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from ocr_ray.config import CMLConfig, RecipeConfig, config_digest, decides_numbers
from ocr_ray.data.labels import Sample, data_digest
from ocr_ray.errors import RunError
from ocr_ray.files import write_text
from ocr_ray.recipes import read_keep, read_test, read_train, read_val
from ocr_ray.teaching.identity import teacher_digest

RECORD_FILE = "record.json"
PACKAGE = Path(__file__).resolve().parent
PACKAGES = (
    *("torch", "numpy", "opencv-python", "shapely", "pyclipper", "safetensors", "omegaconf"),
    *("ray", "optuna", "mlflow", "onnxruntime"),
)
"""Whose versions are written down, where they are installed: the first line decides numbers, the second the rest."""
DIGITS = 16
"""Of a digest that nobody compares by eye with another tool's."""


@dataclass(frozen=True)
class CodeVersion:
    """Which code of ours ran."""

    version: str
    digest: str
    """Of the package's source files: tells changes that no commit holds."""
    commit: str = ""
    """Of the checkout that the package lies in; empty where it lies in none."""
    dirty: bool = False
    """Whether files of the checkout had been changed since that commit."""

    def __str__(self) -> str:
        if not self.commit:
            return f"{self.version} (sources {self.digest})"
        return f"{self.version} at {self.commit[:10]}" + (f", changed since (sources {self.digest})" * self.dirty)


@dataclass(frozen=True)
class RunRecord:
    """One run's. Equal records and configs give equal numbers, on one worker of the same machine."""

    code: CodeVersion
    config_digest: str
    seed: int
    packages: dict[str, str] = field(default_factory=dict)
    """Version by name; `python` among them."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Digest by config key: `data.train`, `data.val` and, where given, `data.keep` and `data.test` (paths as the labels
    have them, and labels), each also with `.pictures` (those paths, and the files' sizes in bytes); `student.weights`
    and `teacher.weights`, where given."""

    def tags(self) -> dict[str, str]:
        """Names under which MLflow has it; its own name for the commit among them."""
        code = self.code
        return {
            "config_digest": self.config_digest,
            "seed": str(self.seed),
            "code.version": code.version,
            "code.digest": code.digest,
            "code.dirty": str(code.dirty).lower(),
            **({"code.commit": code.commit, "mlflow.source.git.commit": code.commit} if code.commit else {}),
            **{f"package.{name}": number for name, number in self.packages.items()},
            **{f"digest.{key}": digest for key, digest in self.inputs.items()},
        }

    def to_json(self) -> str:
        """As `record.json` holds it."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "RunRecord":
        """What `to_json` wrote. Raises: RunError naming `source` for any other text."""
        try:
            plain = json.loads(text)
            return cls(**{**plain, "code": CodeVersion(**plain["code"])})
        except (ValueError, TypeError, KeyError) as e:
            raise RunError(f"{source}: is no record of a run: {e}") from e


class Recorder:
    """Makes the records of runs whose configs differ in little: what they share is read once."""

    def __init__(self) -> None:
        self._code: CodeVersion | None = None
        self._data: dict[tuple[object, ...], dict[str, str]] = {}
        self._weights: dict[str, str] = {}

    def of(self, cfg: RecipeConfig) -> RunRecord:
        """The record of a run of `cfg`, as code, packages and files are now.

        Raises: DataError, ConfigError, WeightsError, UserError where a file that `cfg` names cannot be read.
        """
        data = cfg.data
        inputs = {
            **self._data_digests(
                "data.train", cfg, read_train, (data.train, data.ratios, data.mix, data.root, cfg.run.seed)
            ),
            **self._data_digests("data.val", cfg, read_val, (data.val, data.val_size, data.root)),
        }
        if data.keep:
            inputs |= self._data_digests("data.keep", cfg, read_keep, (data.keep, data.keep_size, data.root))
        if data.test:
            inputs |= self._data_digests("data.test", cfg, read_test, (data.test, data.root))
        teacher = cfg.teacher.weights if isinstance(cfg, CMLConfig) else None
        for key, path in (("student.weights", cfg.student.weights), ("teacher.weights", teacher)):
            if path is not None:
                if path not in self._weights:
                    self._weights[path] = teacher_digest(Path(path))
                inputs[key] = self._weights[path]
        return replace(self.without_inputs(cfg), inputs=inputs)

    def without_inputs(self, cfg: RecipeConfig) -> RunRecord:
        """The same, but for data and weights."""
        self._code = self._code or code_version()
        return RunRecord(self._code, config_digest(cfg), cfg.run.seed, package_versions())

    def _data_digests(
        self, key: str, cfg: RecipeConfig, read: Callable[[RecipeConfig], list[Sample]], identity: tuple[object, ...]
    ) -> dict[str, str]:
        if (key, *identity) not in self._data:
            samples = read(cfg)
            self._data[key, *identity] = {key: data_digest(samples), f"{key}.pictures": pictures_digest(samples)}
        return self._data[key, *identity]


def code_version(package: Path = PACKAGE) -> CodeVersion:
    """Of the package in that folder."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    found = CodeVersion(version("ocr-ray"), digest.hexdigest()[:DIGITS])
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != package.parent:  # an environment inside somebody's checkout is not ours
        return found
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return CodeVersion(found.version, found.digest, commit or "", bool(changed))


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Version by name, of Python and of those that are installed."""
    found = {"python": python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def pictures_digest(samples: Sequence[Sample]) -> str:
    """Of the pictures' names and sizes in bytes: their contents would take as long to read as an epoch."""
    digest = hashlib.sha256()
    for sample in samples:
        size = sample.image.stat().st_size if sample.image.exists() else -1
        digest.update(f"{sample.name or sample.image.name} {size}\n".encode())
    return digest.hexdigest()[:DIGITS]


def keep_record(folder: Path, record: RunRecord) -> list[str]:
    """Writes the record into a run's folder. A resume leaves the one that lies there.

    Returns: in what the one that lies there differs, a line each.
    """
    path = folder / RECORD_FILE
    if path.exists():
        before = RunRecord.from_json(path.read_text(encoding="utf-8"), str(path))
        return differences(before, record, "at its start")
    write_text(path, record.to_json())
    return []


def differences(before: RunRecord, now: RunRecord, when: str = "then") -> list[str]:
    """What is other now than it was `when` the run was made, in a line for each thing; nothing where nothing is."""
    return [*changed_code(before, now, when), *changed_inputs(before, now, when)]


def changed_code(before: RunRecord, now: RunRecord, when: str = "then") -> list[str]:
    """As `differences`, of code and packages."""
    lines = []
    if before.code.digest != now.code.digest:
        lines.append(f"code: {before.code} {when}, {now.code} now")
    odd = _odd(before.packages, now.packages)
    if odd:
        named = (f"{k} {before.packages.get(k, 'absent')} {when}, {now.packages.get(k, 'absent')} now" for k in odd)
        lines.append(f"packages: {'; '.join(named)}")
    return lines


def deciding(record: RunRecord) -> RunRecord:
    """The record without the inputs that no number of a run depends on: sets that are only looked at."""
    return replace(record, inputs={key: digest for key, digest in record.inputs.items() if decides_numbers(key)})


def changed_inputs(before: RunRecord, now: RunRecord, when: str = "then") -> list[str]:
    """As `differences`, of data and weights."""
    lines = []
    for key in _odd(before.inputs, now.inputs):
        was, now_is = (record.inputs.get(key, "none")[:10] for record in (before, now))
        if key.endswith(".pictures"):
            key, what = key.removesuffix(".pictures"), "picture files of other sizes"
        else:
            what = "another file" if key.endswith(".weights") else "other labels or paths"
        lines.append(f"{key}: {what} than {when} ({was}, now {now_is})")
    return lines


def _odd(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says of the checkout that `folder` lies in; None where there is no git, or no checkout."""
    try:
        told = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() if told.returncode == 0 else None
