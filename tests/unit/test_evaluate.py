"""Evaluation with a net whose output is known: it sees text wherever a picture is bright."""

import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ocr_ray.data.images import write_image
from ocr_ray.data.labels import Sample, format_line, read_labels
from ocr_ray.data.normalize import NormalizeConfig
from ocr_ray.data.resize import ResizeConfig
from ocr_ray.engine.evaluate import EvalConfig, Evaluation, ImageResult, evaluate, shrink_maps
from ocr_ray.errors import ConfigError, DataError
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.postprocess import PostprocessConfig

CPU = torch.device("cpu")
CFG = EvalConfig(resize=ResizeConfig(limit_side_len=64, limit_type="max"))


class Bright(nn.Module):
    """Probability .9 where the normalised pixel lies above 0; counts how many pictures each call has."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(3)
        self.batches: list[int] = []

    def shrink_map(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not self.frozen.training
        assert not torch.is_grad_enabled()
        self.batches.append(len(images))
        return 0.9 * (images.mean(dim=1) > 0).float()


def sample(folder: Path, name: str, height: int = 64, ignore: bool = False, is_found: bool = True) -> Sample:
    """A bright kernel of 40x16 in the dark, and a region as large as what grows from it, or one elsewhere."""
    picture = np.zeros((height, 64, 3), np.uint8)
    picture[20:36, 10:50] = 255
    write_image(folder / name, picture)
    # 39 x 15 between the outermost pixels: grown by 39 * 15 * 1.5 / (2 * (39 + 15)) = 8.1 pixels each way.
    left, top = (2, 12) if is_found else (2, 30)
    polygon = np.array([[left, top], [57, top], [57, top + 31], [left, top + 31]], np.float32)
    return Sample(folder / name, (polygon,), np.array([ignore]), ("###" if ignore else "text",), name)


def run(samples: list[Sample], cfg: EvalConfig = CFG, net: Bright | None = None) -> Evaluation:
    return evaluate(net or Bright(), samples, NormalizeConfig(), cfg, CPU)  # type: ignore[arg-type]


def test_counts_and_rule_of_three_pictures(tmp_path: Path) -> None:
    samples = [
        sample(tmp_path, "a.png"),
        sample(tmp_path, "b.png", is_found=False),
        sample(tmp_path, "c.png", ignore=True),
    ]
    evaluation = run(samples)
    assert (evaluation.score.matched, evaluation.score.ground_truth, evaluation.score.detected) == (1, 2, 2)
    assert evaluation.images == 3
    assert evaluation.diagnosis is None
    assert evaluation.resize == "longest side at most 64"
    assert evaluation.as_dict() == {
        "precision": 0.5,
        "recall": 0.5,
        "hmean": 0.5,
        "images": 3,
        "matched": 1,
        "ground_truth": 2,
        "detected": 2,
        "resize": "longest side at most 64",
        "unreadable": [],
        "diagnosis": None,
    }
    assert "hmean 0.5000" in evaluation.one_line()
    assert "longest side at most 64" in evaluation.one_line()


def test_pictures_of_one_size_go_through_together_with_the_same_result(tmp_path: Path) -> None:
    heights = [64, 64, 64, 128, 128, 64]
    samples = [sample(tmp_path, f"{i}.png", height) for i, height in enumerate(heights)]
    cfg = ResizeConfig(limit_side_len=128, limit_type="max")
    alone, together = Bright(), Bright()
    first = run(samples, EvalConfig(resize=cfg), alone)
    second = run(samples, EvalConfig(resize=cfg, batch_size=2), together)
    assert alone.batches == [1] * 6
    assert together.batches == [2, 1, 2, 1]
    assert first == second
    assert first.score.matched == 6


def test_the_modes_of_all_parts_are_as_before_even_after_a_failure(tmp_path: Path) -> None:
    net = Bright()
    net.train()
    net.frozen.eval()
    run([sample(tmp_path, "a.png")], net=net)
    assert net.training
    assert not net.frozen.training

    def fail(_: ImageResult) -> None:
        raise RuntimeError("from the caller")

    with pytest.raises(RuntimeError, match="from the caller"):
        evaluate(net, [sample(tmp_path, "a.png")], NormalizeConfig(), CFG, CPU, on_image=fail)  # type: ignore[arg-type]
    assert net.training
    assert not net.frozen.training


def test_unreadable_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    gone, cut = sample(tmp_path, "gone.png"), sample(tmp_path, "cut.png")
    gone.image.unlink()
    cut.image.write_bytes(b"no picture")
    evaluation = run([gone, sample(tmp_path, "a.png"), cut])
    assert evaluation.images == 1
    assert evaluation.score.ground_truth == 1
    assert [Path(text.split(":")[0]).name for text in evaluation.unreadable] == ["gone.png", "cut.png"]
    assert "2 images left out" in evaluation.one_line()


def test_counts_by_picture_are_in_order_and_their_sums_are_the_score(tmp_path: Path) -> None:
    samples = [sample(tmp_path, f"{i}.png", is_found=i != 1, ignore=i == 2) for i in range(4)]
    samples[0].image.unlink()
    evaluation = run(samples, EvalConfig(resize=CFG.resize, batch_size=2))
    assert [dataclasses.astuple(p) for p in evaluation.per_image] == [
        (1, "1.png", 0, 1, 1),
        (2, "2.png", 0, 0, 0),
        (3, "3.png", 1, 1, 1),
    ]
    score = evaluation.score
    sums = [sum(getattr(p, name) for p in evaluation.per_image) for name in ("matched", "ground_truth", "detected")]
    assert sums == [score.matched, score.ground_truth, score.detected]


def test_nothing_to_evaluate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labelled picture"):
        run([])
    gone = sample(tmp_path, "gone.png")
    gone.image.unlink()
    with pytest.raises(DataError, match=r"none of 1 pictures.*gone\.png"):
        run([gone])


def test_each_picture_is_handed_out_with_its_own_findings(tmp_path: Path) -> None:
    results: list[ImageResult] = []
    samples = [sample(tmp_path, "a.png"), sample(tmp_path, "b.png", is_found=False)]
    evaluate(Bright(), samples, NormalizeConfig(), CFG, CPU, on_image=results.append)  # type: ignore[arg-type]
    assert [r.sample.name for r in results] == ["a.png", "b.png"]
    assert [r.counts.matched for r in results] == [1, 0]
    assert [len(r.detections) for r in results] == [1, 1]
    assert results[0].probability.shape == (64, 64)


def test_hmean_0_comes_with_its_reason(tmp_path: Path) -> None:
    evaluation = run([sample(tmp_path, "b.png", is_found=False)])
    assert evaluation.score.hmean == 0
    assert evaluation.diagnosis is not None
    assert "none overlaps" in evaluation.diagnosis
    assert evaluation.diagnosis in evaluation.one_line()


def test_a_net_with_random_weights_is_told_from_one_that_finds_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Detector(DetectorConfig())
    evaluation = evaluate(net, [sample(tmp_path, "a.png")], NormalizeConfig(), CFG, CPU)
    assert evaluation.diagnosis is not None
    assert "not loaded or not trained" in evaluation.diagnosis


def test_bf16_maps_differ_from_fp32_by_rounding_alone() -> None:
    torch.manual_seed(0)
    net = Detector(DetectorConfig()).eval()
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    full = shrink_maps(net, [picture], NormalizeConfig(), CPU)
    half = shrink_maps(net, [picture], NormalizeConfig(), CPU, bf16=True)
    assert full.shape == (1, 64, 96)
    assert full.dtype == half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.1


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"eval\.every_epochs"):
        EvalConfig(every_epochs=0)
    with pytest.raises(ConfigError, match=r"eval\.batch_size"):
        EvalConfig(batch_size=0)


def test_two_ranks_find_together_what_one_finds_alone(tmp_path: Path) -> None:
    samples = [sample(tmp_path, f"{i}.png", is_found=i != 1, ignore=i == 2) for i in range(5)]
    lines = [format_line(s.name, s.polygons, s.texts) + "\n" for s in samples]
    (tmp_path / "labels.txt").write_text("".join(lines))
    samples[3].image.unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(tmp_path / "labels.txt"), str(port)]
    ranks = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    found = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    alone = run(samples)
    assert found[0] == found[1] == [alone.as_dict(), [list(dataclasses.astuple(p)) for p in alone.per_image]]
    assert (alone.images, alone.score.matched, len(alone.unreadable)) == (4, 2, 1)


def evaluate_one_rank(labels: Path, port: int, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = evaluate(Bright(), read_labels(labels), NormalizeConfig(), CFG, CPU, rank, 2)  # type: ignore[arg-type]
    dist.destroy_process_group()
    print(json.dumps([found.as_dict(), [dataclasses.astuple(picture) for picture in found.per_image]]))


def test_thresholds_are_those_of_the_config(tmp_path: Path) -> None:
    samples = [sample(tmp_path, "a.png")]
    strict = EvalConfig(resize=CFG.resize, postprocess=PostprocessConfig(box_thresh=0.95))
    evaluation = run(samples, strict)
    assert evaluation.score.detected == 0
    assert evaluation.diagnosis is not None
    assert "box_thresh 0.95" in evaluation.diagnosis


if __name__ == "__main__":  # one of the two ranks above
    evaluate_one_rank(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
