import pytest
import torch

from ocr_ray.errors import ConfigError
from ocr_ray.models.db_fpn import DBFPNConfig
from ocr_ray.models.db_head import DBHeadConfig
from ocr_ray.models.detector import Detector, DetectorConfig, teacher_config
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.mobilenet_v3 import MobileNetV3Config, round_channels
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.models.rse_fpn import RSEFPNConfig
from ocr_ray.typed import from_plain, to_plain

LIGHT_TEACHER = DetectorConfig(
    ResNetVdConfig(layers=18, width=0.25),
    LKPANConfig(out_channels=32, mode="lite"),
    DBHeadConfig(kernel_list=(7, 2, 2)),
)
CONFIGS = [
    DetectorConfig(),
    LIGHT_TEACHER,
    DetectorConfig(MobileNetV3Config(use_se=True), DBFPNConfig(out_channels=96)),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("cfg", CONFIGS)
def test_three_maps_of_probabilities_as_large_as_the_pictures(cfg: DetectorConfig) -> None:
    detector = Detector(cfg)
    images = torch.randn(2, 3, 64, 96)
    for mode in (True, False):
        maps = detector.train(mode)(images)
        for values in (maps.shrink, maps.threshold, maps.binary):
            assert values.shape == (2, 64, 96)
            assert values.dtype == torch.float32
            assert values.min() >= 0
            assert values.max() <= 1
        torch.testing.assert_close(maps.binary, 1 / (1 + torch.exp(-50 * (maps.shrink - maps.threshold))))


def test_shrink_map_leaves_the_threshold_branch_alone() -> None:
    detector = Detector(DetectorConfig()).eval()
    images = torch.randn(1, 3, 64, 64)
    expected = detector(images).shrink
    for parameter in detector.head.thresh.parameters():
        parameter.data.fill_(torch.nan)
    assert torch.equal(detector.shrink_map(images), expected)


@pytest.mark.parametrize("kernel_list", [(3, 2, 2), (7, 2, 2), (1, 3, 4), (5, 4, 3), (3, 5, 6)])
def test_any_kernels_give_maps_of_the_right_size(kernel_list: tuple[int, int, int]) -> None:
    detector = Detector(DetectorConfig(head=DBHeadConfig(kernel_list=kernel_list)))
    assert detector(torch.randn(1, 3, 64, 96)).threshold.shape == (1, 64, 96)


def test_k_is_the_steepness() -> None:
    gentle, steep = (Detector(DetectorConfig(head=DBHeadConfig(k=k))).eval() for k in (1.0, 50.0))
    gentle.load_state_dict(steep.state_dict())
    images = torch.randn(1, 3, 64, 64)
    a, b = gentle(images), steep(images)
    assert torch.equal(a.shrink, b.shrink)
    torch.testing.assert_close(torch.special.logit(a.binary), a.shrink - a.threshold, rtol=0, atol=1e-5)
    assert (b.binary - 0.5).abs().mean() > (a.binary - 0.5).abs().mean()


@pytest.mark.parametrize("cfg", CONFIGS)
def test_bf16_gives_float32_maps_near_the_exact_ones(cfg: DetectorConfig) -> None:
    detector, images = Detector(cfg).train(), torch.randn(2, 3, 64, 64)
    exact = detector(images)
    with torch.autocast("cpu", torch.bfloat16):
        maps = detector(images)
    assert maps.shrink.dtype == maps.binary.dtype == torch.float32
    assert (maps.shrink - exact.shrink).abs().mean() < 0.05
    maps.binary.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


@pytest.mark.parametrize("shape", [(1, 3, 64, 80), (1, 3, 48, 64), (1, 4, 64, 64), (3, 64, 64)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        Detector(DetectorConfig())(torch.zeros(shape))


@pytest.mark.parametrize("cfg", [*CONFIGS, teacher_config()])
def test_configs_make_the_round_trip_through_plain_data(cfg: DetectorConfig) -> None:
    assert from_plain(DetectorConfig, to_plain(cfg), "test") == cfg


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: MobileNetV3Config(scale=0), "backbone.scale"),
        (lambda: MobileNetV3Config(scale=float("nan")), "backbone.scale"),
        (lambda: ResNetVdConfig(width=-1), "backbone.width"),
        (lambda: ResNetVdConfig(layers=101), "backbone.layers"),  # type: ignore[arg-type]
        (lambda: RSEFPNConfig(out_channels=10), "neck.out_channels"),
        (lambda: RSEFPNConfig(out_channels=8), "neck.out_channels"),
        (lambda: LKPANConfig(out_channels=6), "neck.out_channels"),
        (lambda: DBFPNConfig(out_channels=0), "neck.out_channels"),
        (lambda: DBHeadConfig(kernel_list=(2, 2, 2)), "head.kernel_list"),
        (lambda: DBHeadConfig(kernel_list=(3, 1, 2)), "head.kernel_list"),
    ],
)
def test_numbers_that_make_no_net_are_refused(build, key: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=key):
        build()


@pytest.mark.parametrize(
    ("channels", "rounded"), [(8, 8), (3, 8), (36, 40), (60, 64), (20, 24), (100, 104), (92, 96), (11, 16)]
)
def test_channels_are_rounded_as_in_the_paper(channels: float, rounded: int) -> None:
    assert round_channels(channels) == rounded
