"""How a run is placed, searched and written down: settings that belong to no model and to no data."""

from dataclasses import dataclass
from typing import Literal

from ocr_ray.errors import ConfigError


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep draws its trials and which of them it ends early. Epochs are as the trials report them."""

    trials: int = 16
    max_hours: float | None = None
    """Wall time, over all attempts. When it, or one of the three below, is spent, no further trial is started, and each
    that runs ends with the epoch under way, but for the control, which comes to its end. Within the hours, room is kept
    for the confirmation by the measured time of a run, up to half of them; as many candidates as fit are confirmed, and
    what has begun comes to its end. Absent: no such limit."""
    max_device_hours: float | None = None
    """Hours times workers, summed over trials and runs of the confirmation, from their start to their end."""
    plateau_trials: int | None = None
    """The search ends when so many trials one after another have ended without raising the best hmean by more than
    plateau_margin."""
    plateau_margin: float = 0.002
    max_failed: float = 0.5
    """When a larger share of `trials` has failed, no further one is started, and the sweep fails when those that run
    have ended. `--resume` goes on with those that are left, and counts anew. 1: failures alone never end it."""
    searcher: Literal["tpe", "gp", "cmaes", "random", "grid"] = "tpe"
    """`tpe`, `gp`, `cmaes`: Optuna's tree of Parzen estimators, Gaussian process and evolution strategy, which learn
    from trials that have ended. `random`: draws that ignore results. `grid`: every combination, in random order."""
    against: Literal["parameters", "latency"] | None = None
    """What hmean is weighed against: the student's parameters, or its time on one CPU thread. The answer is then the
    Pareto set: the trials of which none has both a higher hmean and a lower cost. No trial is ended early, and `cmaes`
    cannot search so. Absent: hmean alone."""
    latency_side: int = 640
    """The latency is that of one square picture of so many pixels a side, a multiple of 32."""
    scheduler: Literal["auto", "asha", "median", "pbt", "none"] = "auto"
    """`asha`: keeps the best 1/reduction_factor at each rung. `median`: stops what lies under the median of others'
    running means. `none`: every trial runs to its end. `auto`: `median` below 16 trials, `asha` from 16 on, `none` with
    `against`. The first trial, if it is the config itself, is ended by none of them. `pbt` ends nothing either: every
    `perturb_epochs` a trial that does poorly goes on from the weights of one that does well, with values near that
    one's, so that the winner's values are a schedule."""
    perturb_epochs: int = 20
    """Only `pbt` reads it. Each takeover costs the start of a trial's workers."""
    quantile: float = 0.25
    """Share of the trials that take over, and of those that are taken over; only `pbt` reads it."""
    grace_epochs: int | None = None
    """No trial is ended before it has reported this many epochs: the first rung. Absent: a third of the epochs under
    `median`, a ninth under `asha`, rounded up to an epoch with an evaluation."""
    reduction_factor: int = 3
    """Rungs lie at grace_epochs times its powers; only `asha` reads it."""
    max_concurrent: int | None = None
    """Trials at a time; absent: as many as the cluster can place. A larger number is cut to that."""
    default_first: bool = True
    """The first trial takes the config's own values where they lie inside the space, so that the sweep cannot end
    below its start unnoticed."""
    neighbours: int | None = None
    """After it, so many trials that differ from it in one key, halved or doubled, where the space holds that: keys that
    are drawn log-uniformly, those of the loss first. Absent: a quarter of the trials, at most 4; none with `grid`."""
    seed: int = 0
    """Of the draws. With more than one trial at a time those that learn depend on the order of the results as well."""
    confirm: int = 0
    """So many of the best trials are trained again after the search, beside the default config, and held against it and
    against the untouched starting weights: the winner is what beats both beyond noise. 0: the best trial as it is."""
    seeds: int = 3
    """How often each of them is trained for that, each time with a fresh seed, the same ones for all. More seeds tell
    smaller differences from noise; two tell large ones only."""

    def __post_init__(self) -> None:
        for key, value, least in (
            ("trials", self.trials, 1),
            ("grace_epochs", 1 if self.grace_epochs is None else self.grace_epochs, 1),
            ("plateau_trials", 1 if self.plateau_trials is None else self.plateau_trials, 1),
            ("perturb_epochs", self.perturb_epochs, 1),
            ("reduction_factor", self.reduction_factor, 2),
            ("max_concurrent", 1 if self.max_concurrent is None else self.max_concurrent, 1),
            ("neighbours", 0 if self.neighbours is None else self.neighbours, 0),
            ("seed", self.seed, 0),
            ("latency_side", self.latency_side, 32),
            ("confirm", self.confirm, 0),
            ("seeds", self.seeds, 2),
        ):
            if value < least:
                raise ConfigError(f"sweep.{key}: expected at least {least}, found {value}")
        for key, limit in (("max_hours", self.max_hours), ("max_device_hours", self.max_device_hours)):
            if limit is not None and not limit > 0:
                raise ConfigError(f"sweep.{key}: expected more than 0, found {limit:g}")
        if not 0 <= self.plateau_margin < 1:
            raise ConfigError(f"sweep.plateau_margin: expected 0 to 1, found {self.plateau_margin:g}")
        if not 0 < self.quantile <= 0.5:
            raise ConfigError(f"sweep.quantile: expected more than 0 and at most 0.5, found {self.quantile:g}")
        if self.scheduler == "pbt" and self.searcher not in ("random", "grid"):
            raise ConfigError(
                f"sweep.searcher: expected random or grid with sweep.scheduler=pbt, found {self.searcher}: a "
                "population proposes values itself, beyond those that it begins with"
            )
        if self.scheduler == "pbt" and self.confirm:
            raise ConfigError(
                f"sweep.confirm: expected 0 with sweep.scheduler=pbt, found {self.confirm}: what wins there is a "
                "schedule of values, which no single config trains again"
            )
        if not 0 <= self.max_failed <= 1:
            raise ConfigError(f"sweep.max_failed: expected 0 to 1, found {self.max_failed:g}")
        if self.latency_side % 32:
            raise ConfigError(f"sweep.latency_side: expected a multiple of 32, found {self.latency_side}")
        if self.against is not None and self.scheduler not in ("auto", "none"):
            raise ConfigError(
                f"sweep.scheduler: expected auto or none with sweep.against={self.against}, found {self.scheduler}: a "
                "trial of low hmean may be the cheapest of all"
            )
        if self.against is not None and self.searcher == "cmaes":
            raise ConfigError(
                f"sweep.searcher: expected tpe, gp, random or grid with sweep.against={self.against}, found cmaes, "
                "which knows one objective alone"
            )


@dataclass(frozen=True)
class TrackingConfig:
    """Where MLflow writes."""

    uri: str | None = None
    """A tracking server or database. Absent: MLFLOW_TRACKING_URI, or else `mlflow.db` in the storage folder."""
    experiment: str = "ocr_ray"
    pictures: int = 4
    """Pictures of val, evenly spaced, on which a run's findings are drawn as it learns; 0: none."""

    def __post_init__(self) -> None:
        if self.pictures < 0:
            raise ConfigError(f"tracking.pictures: expected at least 0, found {self.pictures}")


@dataclass(frozen=True)
class ClusterConfig:
    """What one run asks of the cluster. A sweep's trial is one run."""

    num_workers: int = 1
    """DDP processes of one run; the batch of the config is that of one worker."""
    use_gpu: bool | None = None
    """Absent: one where the cluster has any."""
    cpus_per_worker: float | None = None
    """Absent: 1. On machines of few cores two workers of .45 run side by side."""
    gpus_per_worker: float | None = None
    """Absent: 1 with use_gpu, else 0; in a sweep with a shared teacher what a trial's training step is found to need.
    A fraction packs several trials onto one GPU."""
    max_failures: int = 2
    """Restarts from the last checkpoint after a worker was lost, before the run fails."""
    address: str | None = None
    """Of a running cluster (`auto` for the one on this machine). Absent: one of its own, ended with the run; inside
    a submitted job always the job's cluster."""
    storage: str = "runs"
    """Folder of checkpoints, sweeps and the tracking database; with more than one machine, one that all of them see."""

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError(f"ray.num_workers: expected at least 1, found {self.num_workers}")
        if self.max_failures < 0:
            raise ConfigError(f"ray.max_failures: expected at least 0, found {self.max_failures}")
        for key, value in (("cpus_per_worker", self.cpus_per_worker), ("gpus_per_worker", self.gpus_per_worker)):
            if value is not None and value <= 0:
                raise ConfigError(f"ray.{key}: expected more than 0, found {value:g}")
        if self.use_gpu is False and self.gpus_per_worker is not None:
            raise ConfigError(
                f"ray.gpus_per_worker: expected nothing with ray.use_gpu=false, found {self.gpus_per_worker:g}"
            )
