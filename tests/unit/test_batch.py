import pytest
import torch

from ocr_ray.data.batch import Failure, Item, Targets, collate


def item(index: int, side: int = 32, failures: tuple[Failure, ...] = ()) -> Item:
    def filled(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((side, side), value).to(dtype)

    targets = Targets(
        filled(1, torch.uint8), filled(0, torch.uint8), filled(0.3 + index / 10, torch.float32), filled(1, torch.uint8)
    )
    return Item(torch.full((3, side, side), index, dtype=torch.uint8), targets, (4, index), f"{index}.jpg", failures)


def test_samples_are_stacked_in_order() -> None:
    broken = Failure((4, 9), "9.jpg", "9.jpg: is empty")
    batch = collate([item(2), item(1, failures=(broken,))])
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == [2, 1]
    assert batch.keys == ((4, 2), (4, 1))
    assert batch.paths == ("2.jpg", "1.jpg")
    assert batch.failures == (broken,)
    assert batch.targets.threshold_map[:, 5, 5].tolist() == pytest.approx([0.5, 0.4])


def test_targets_are_widened_where_they_arrive() -> None:
    batch = collate([item(1)]).to("cpu")
    assert batch.images.dtype == torch.uint8
    for maps in (
        batch.targets.shrink_map,
        batch.targets.shrink_mask,
        batch.targets.threshold_map,
        batch.targets.threshold_mask,
    ):
        assert maps.shape == (1, 32, 32)
        assert maps.dtype == torch.float32
    assert batch.targets.shrink_map.unique().tolist() == [1]
    assert batch.targets.shrink_mask.unique().tolist() == [0]


def test_nothing_and_mixed_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        collate([])
    with pytest.raises(RuntimeError, match="size"):
        collate([item(1), item(2, side=64)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a GPU")
def test_pinned() -> None:
    batch = collate([item(1)]).pin_memory()
    assert batch.images.is_pinned()
    assert batch.targets.threshold_map.is_pinned()
    assert batch.to("cuda").targets.shrink_map.dtype == torch.float32
