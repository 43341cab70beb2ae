"""Answers of a teacher on disk: what comes back is what was put in, or nothing."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ocr_ray.data.dataset import TrainSampler
from ocr_ray.engine.teacher import fingerprints, packed, unpacked
from ocr_ray.engine.teacher_store import PIECE, Answer, BrokenPiece, Piece, TeacherStore, Turns
from ocr_ray.errors import ConfigError

TURNS = Turns(seed=7, num_samples=70)


def answers(number: int) -> list[Answer]:
    bits = packed(torch.rand(number, 32, 64, generator=torch.Generator().manual_seed(number)) > 0.5)
    return [Answer(3 * i - 7, row) for i, row in enumerate(bits)]


def same(some: Sequence[Answer] | None, others: Sequence[Answer]) -> bool:
    assert some is not None
    pairs = zip(some, others, strict=True)
    return all(one.picture == other.picture and torch.equal(one.bits, other.bits) for one, other in pairs)


@pytest.fixture
def store(tmp_path: Path) -> TeacherStore:
    return TeacherStore(str(tmp_path), "digest")


def written(store: TeacherStore, piece: Piece) -> list[Answer]:
    keys = TURNS.keys_of(piece)
    store.write(piece, keys, answers(len(keys)))
    return answers(len(keys))


@pytest.mark.parametrize("size", [(32, 64), (5, 7), (1, 1)])
def test_masks_survive_packing(size: tuple[int, int]) -> None:
    masks = torch.rand(3, *size) > 0.5
    assert packed(masks).shape == (3, -(-size[0] * size[1] // 8))
    assert torch.equal(unpacked(packed(masks), *size), masks)


def test_a_picture_is_known_by_its_fingerprint() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    (one, other), alone = fingerprints(images), fingerprints(images[1:])
    assert [other] == alone
    assert one != other
    moved = images.clone()
    moved[0, 1, 5, 7] ^= 1
    swapped = images.clone()
    swapped[0, :, 3], swapped[0, :, 4] = images[0, :, 4], images[0, :, 3]
    assert len({one, fingerprints(moved)[0], fingerprints(swapped)[0]}) == 3


def test_the_pieces_of_a_turn_are_the_samplers_order_cut_in_parts() -> None:
    sampler = TrainSampler(70, epoch_size=70, batch_size=16, seed=7)
    for turn in range(3):
        sampler.set_epoch(turn)
        asked = [key for batch in sampler for key in batch]
        pieces = [Piece(turn, number) for number in range(-(-70 // PIECE))]
        assert [key for piece in pieces for key in TURNS.keys_of(piece)] == asked
        assert [TURNS.piece_of(key) for key in asked] == [TURNS.piece_at(70 * turn + i) for i in range(70)]
        assert [TURNS.after(piece) for piece in pieces] == [*pieces[1:], Piece(turn + 1, 0)]


def test_a_piece_comes_back_as_it_was(store: TeacherStore) -> None:
    piece = Piece(3, 1)
    assert not store.holds(piece)
    assert store.read(piece, TURNS.keys_of(piece)) is None
    whole = written(store, piece)
    assert store.holds(piece)
    assert same(store.read(piece, TURNS.keys_of(piece)), whole)


def test_another_digest_is_another_store(store: TeacherStore, tmp_path: Path) -> None:
    written(store, Piece(0, 0))
    assert not TeacherStore(str(tmp_path), "other").holds(Piece(0, 0))


def test_a_piece_of_other_pictures_is_refused(store: TeacherStore) -> None:
    written(store, Piece(0, 0))
    with pytest.raises(BrokenPiece, match="other pictures"):
        store.read(Piece(0, 0), TURNS.keys_of(Piece(0, 1)))


def test_a_flipped_bit_or_a_cut_is_never_taken_for_an_answer(store: TeacherStore, tmp_path: Path) -> None:
    piece = Piece(0, 0)
    keys, whole = TURNS.keys_of(piece), written(store, piece)
    (file,) = tmp_path.rglob("*.parquet")
    data = file.read_bytes()
    refused = 0
    for place in random.Random(0).sample(range(8 * len(data)), 1500):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        try:
            back = store.read(piece, keys)
        except BrokenPiece:
            refused += 1
            continue
        assert same(back, whole)  # the bit told nothing, e.g. who wrote the file
    assert refused > 750
    for length in range(0, len(data), 97):
        file.write_bytes(data[:length])
        with pytest.raises(BrokenPiece):
            store.read(piece, keys)


def test_sizes_are_by_turn_and_a_turn_can_be_taken_out(store: TeacherStore, tmp_path: Path) -> None:
    assert store.sizes() == {}
    for piece in (Piece(0, 0), Piece(0, 1), Piece(4, 0)):
        written(store, piece)
    on_disk = {p.name: p.stat().st_size for p in (tmp_path / "digest" / "turn-0000000").iterdir()}
    assert set(store.sizes()) == {0, 4}
    assert store.sizes()[0] == sum(on_disk.values())
    store.remove_turn(0)
    assert set(store.sizes()) == {4}
    assert not store.holds(Piece(0, 1))
    store.remove_turn(0)  # as when another sweep was faster


def test_a_uri_names_a_place_as_well(tmp_path: Path) -> None:
    """Through pyarrow's own file system, as an object store's is."""
    remote = TeacherStore(f"file://{tmp_path}", "digest")
    whole = written(remote, Piece(1, 0))
    assert same(TeacherStore(str(tmp_path), "digest").read(Piece(1, 0), TURNS.keys_of(Piece(1, 0))), whole)


def test_a_place_that_is_no_folder_keeps_pieces_as_well() -> None:
    """pyarrow's own in memory."""
    remote = TeacherStore("mock:///bucket", "digest")
    remote.try_out()
    assert remote.sizes() == {}
    whole = written(remote, Piece(1, 0))
    assert same(remote.read(Piece(1, 0), TURNS.keys_of(Piece(1, 0))), whole)
    assert remote.sizes().keys() == {1}
    assert remote.free_bytes() is None
    remote.remove_turn(1)
    assert not remote.holds(Piece(1, 0))


def test_trying_it_out_leaves_nothing_and_tells_of_a_place_that_cannot_be_written(
    store: TeacherStore, tmp_path: Path
) -> None:
    store.try_out()
    TeacherStore(str(tmp_path / "place"), "digest").try_out()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        TeacherStore(str(tmp_path / "file"), "digest").try_out()


def test_an_unknown_place_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.store: nowhere://x: "):
        TeacherStore("nowhere://x", "digest")


def test_room_is_known_where_the_store_is_local(store: TeacherStore) -> None:
    assert (store.free_bytes() or 0) > 0
