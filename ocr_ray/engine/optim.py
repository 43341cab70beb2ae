"""Adam, and the learning rate of each step."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, inf, pi

import torch
from torch import nn

from ocr_ray.errors import ConfigError


@dataclass(frozen=True)
class OptimConfig:
    """How weights are moved. The defaults are the reference's for a student alone; DML and CML have their own in
    `config.py`, since there the reference acts on a gradient summed over its 8 pictures."""

    lr: float = 1e-3
    """Highest learning rate. The reference's is meant for 64 pictures a step, and scales with them."""
    epochs: int = 500
    warmup_epochs: float = 2.0
    """Epochs in which the rate rises from 0; may be a fraction."""
    weight_decay: float = 5e-5
    """L2: this share of each weight is added to its gradient, before Adam; normalisations and biases included."""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = None
    """Bound on the L2 norm of the whole gradient. Absent: none."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"optim.epochs: expected at least 1, found {self.epochs}")
        for key in ("lr", "warmup_epochs", "weight_decay"):
            if not 0 <= getattr(self, key) < inf:
                raise ConfigError(f"optim.{key}: expected a number of at least 0, found {getattr(self, key):g}")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"optim.{key}: expected at least 0 and less than 1, found {getattr(self, key):g}")
        if not 0 < self.eps < inf:
            raise ConfigError(f"optim.eps: expected a number above 0, found {self.eps:g}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(f"optim.clip_norm: expected a number above 0, or null, found {self.clip_norm:g}")


def learning_rate(step: int, steps_per_epoch: int, cfg: OptimConfig) -> float:
    """The rate of optimiser update `step`, counted from 0 over the whole run.

    It rises on a line from 0, so the first update moves nothing, to `cfg.lr` over the warm-up, and falls from there on
    a cosine whose half period is all steps of the run, not those that are left: it does not quite reach 0.

    Source: reference names `Cosine` and `LinearWarmup`. Past the end of the run it goes on, as there.
    """
    warmup = round(cfg.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return cfg.lr * step / warmup
    return cfg.lr * (1 + cos(pi * (step - warmup) / (cfg.epochs * steps_per_epoch))) / 2


def build_adam(parameters: Iterable[nn.Parameter], cfg: OptimConfig) -> torch.optim.Adam:
    """Adam with coupled weight decay (not AdamW), at rate `cfg.lr` until another is put into its group.

    `fused`: one pass over the weights in place of a dozen, on CPU and GPU.
    Source: Kingma and Ba 2015, arXiv 1412.6980.
    """
    return torch.optim.Adam(
        parameters, lr=cfg.lr, betas=(cfg.beta1, cfg.beta2), eps=cfg.eps, weight_decay=cfg.weight_decay, fused=True
    )
