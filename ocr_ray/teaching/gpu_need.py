"""How much of a GPU a trial needs when its teacher is elsewhere: found by a training step on one."""

import dataclasses
from typing import Any

import ray
import torch

from ocr_ray.config import CMLConfig, RecipeConfig, recipe_from_plain
from ocr_ray.data.batch import Targets
from ocr_ray.data.normalize import normalize
from ocr_ray.engine.graphs import record_graphs
from ocr_ray.engine.loop import update
from ocr_ray.engine.optim import build_adam
from ocr_ray.progress import LiveFeed
from ocr_ray.recipes import build_model
from ocr_ray.teaching.sharing import TeachingPlan
from ocr_ray.typed import to_plain

MOST_PER_GPU = 4
"""Light trials on one GPU: beyond a few they only wait for one another."""
MARGIN = 1.2
"""On the measured bytes: evaluation has larger pictures, and memory goes to pieces."""
MEASURED_S = 300.0
"""How long the measurement may take, the wait for a GPU that nobody else uses included."""
CONTEXT_BYTES = 2**30
"""That a process takes before it has put anything on the GPU."""


def with_gpu_share(cfg: RecipeConfig, plan: TeachingPlan | None, live: LiveFeed) -> RecipeConfig:
    """The config with `ray.gpus_per_worker` set where it is absent and the trials read a shared teacher's answers.

    Without a share of their own trials would take a GPU each, of which two light students need a small part. To be
    called while nothing of the sweep holds a GPU yet.
    """
    if plan is None or not plan.on_gpu or cfg.ray.gpus_per_worker is not None:
        return cfg
    assert isinstance(cfg, CMLConfig)
    free = 1 - plan.options["num_gpus"] or 1.0  # beside a producer; one that takes a whole GPU is beside nobody
    share = free
    if cfg.ray.num_workers == 1:  # two ranks of one run on one GPU are nothing NCCL takes
        try:
            measured = ray.remote(num_gpus=1, num_cpus=0, max_retries=0)(_used_and_total).remote(to_plain(cfg))
            used, total = ray.get(measured, timeout=MEASURED_S)
        except ray.exceptions.RayError as e:
            why = str(e).strip().splitlines()[-1:] or [type(e).__name__]
            live.say(f"sweep: what a trial needs of a GPU could not be measured ({why[0][:120]})")
        else:
            share = gpu_share(used, total, free)
            live.say(f"sweep: a trial's step takes {used / 2**30:.1f} of {total / 2**30:.0f} GiB of a GPU")
        live.say(f"sweep: ray.gpus_per_worker={share:g}")
    return dataclasses.replace(cfg, ray=dataclasses.replace(cfg.ray, gpus_per_worker=share))


def gpu_share(used: int, total: int, free: float) -> float:
    """The part of a GPU that a trial is to ask for.

    Args: used are the bytes of its training step, of `total`; free is the part that trials may have, in (0, 1].
    """
    need = (MARGIN * used + CONTEXT_BYTES) / total
    fitting = max(1, min(MOST_PER_GPU, int(free / need)))
    return int(free / fitting * 10_000) / 10_000  # Ray counts in ten-thousandths


def training_step(cfg: CMLConfig, device: torch.device) -> None:
    """Two updates of a trial's students on noise of the config's size, as a worker does them."""
    memory_format = torch.channels_last if cfg.run.channels_last else torch.contiguous_format
    model = build_model(cfg, with_teacher=False).model.train()
    model = model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    size = cfg.data.batch_size, cfg.data.augment.crop_height, cfg.data.augment.crop_width
    shape = size[0], 3, *size[1:]
    if device.type == "cuda" and cfg.run.cuda_graphs:
        record_graphs(model, shape, cfg.run.precision, cfg.run.channels_last)
    optimizer = build_adam(list(model.parameters()), cfg.optim)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    maps = torch.randint(0, 2, (4, *size), device=device).float()
    targets = Targets(maps[0], maps[1], maps[2], maps[3], maps[0].bool())
    for _ in range(2):
        ready = normalize(images, cfg.data.normalize).contiguous(memory_format=memory_format)
        update(model, optimizer, ready, targets, cfg.loss, cfg.run.precision, cfg.optim.clip_norm)


def _used_and_total(plain: dict[str, Any]) -> tuple[int, int]:
    cfg = recipe_from_plain(plain, "config")
    assert isinstance(cfg, CMLConfig)
    training_step(cfg, torch.device("cuda"))
    return torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[1]
