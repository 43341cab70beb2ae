"""A teacher's stored answers are those of a teacher among the nets, and the desk keeps its promises."""

import asyncio
import dataclasses
from pathlib import Path

import pytest
import torch

from ocr_ray.config import CMLConfig, override
from ocr_ray.data.compact import Loaded
from ocr_ray.engine.checkpoint import RunState
from ocr_ray.engine.loop import Training, fit
from ocr_ray.engine.optim import build_adam
from ocr_ray.engine.teacher_store import PIECE, Answer, Piece, TeacherStore, Turns
from ocr_ray.errors import ConfigError, DataError
from ocr_ray.model_card import ModelCard, save_detector
from ocr_ray.models.db_head import DBHeadConfig
from ocr_ray.models.detector import Detector, DetectorConfig
from ocr_ray.models.lkpan import LKPANConfig
from ocr_ray.models.resnet_vd import ResNetVdConfig
from ocr_ray.recipes import build_model, build_training, read_train
from ocr_ray.session import threads_of_environment
from ocr_ray.teaching.client import SharedTeacher
from ocr_ray.teaching.desk import Desk, TeachingStats
from ocr_ray.teaching.identity import INGREDIENTS, answers_digest, teacher_threads, why_not_shared
from ocr_ray.teaching.producer import Made, PieceMaker, build_teacher
from ocr_ray.teaching.sharing import Teaching, teaching_of
from ocr_ray.typed import flatten

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small teacher with random weights: it sees text in about half of all pixels."""
    torch.manual_seed(0)
    detector = DetectorConfig(ResNetVdConfig(layers=18, width=0.25), LKPANConfig(out_channels=32), DBHeadConfig())
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_detector(path, Detector(detector), ModelCard(detector=detector))
    return path


@pytest.fixture
def cfg(small_set: Path, teacher_file: Path) -> CMLConfig:
    given = override(
        CMLConfig(),
        [
            *(f"data.train=[{small_set}/train_label.txt]", f"data.val=[{small_set}/val_label.txt]"),
            *(f"teacher.weights={teacher_file}", "student.detector.backbone.scale=0.35", "data.num_workers=0"),
            *("data.batch_size=3", "data.augment.crop_width=64", "data.augment.crop_height=96", "optim.epochs=2"),
            *("eval.resize.limit_side_len=64", "eval.resize.limit_type=max", "optim.warmup_epochs=0", "run.threads=1"),
            *("data.augment.copy_paste.enabled=false", "eval.every_epochs=1"),
        ],
    )
    assert isinstance(given, CMLConfig)
    return given


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Shop:
    """A maker and a reader of one store in this process, with what the reader asked for."""

    def __init__(self, cfg: CMLConfig, folder: Path, able: bool = True, device: torch.device = CPU) -> None:
        self.store = TeacherStore(str(folder), "digest")
        self.maker, self.able = PieceMaker(cfg, self.store, device), able
        self.asked: list[tuple[Piece, bool]] = []
        self.prepared: list[Piece] = []
        self.live = 0
        samples = len(read_train(cfg))
        turns = Turns(cfg.run.seed, samples)
        last = turns.piece_at(cfg.optim.epochs * samples - 1)
        self.reader = SharedTeacher(
            self.ensure,
            self.prepared.append,
            self.tell_live,
            self.store,
            turns,
            1.0,
            last,
            2,
            lambda: build_teacher(cfg, device),
            device.type,
        )

    def ensure(self, piece: Piece, answers: int, broken: bool) -> bool:
        self.asked.append((piece, broken))
        if self.able:
            self.maker.make(piece)
        return self.able

    def tell_live(self, answers: int) -> None:
        self.live += answers


def losses_and_weights(training: Training) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    reports: list[dict[str, float]] = []
    optimizer = build_adam([p for p in training.model.parameters() if p.requires_grad], training.optim)
    fit(training, optimizer, RunState(), lambda epoch: reports.append(epoch.metrics))
    state = {k: v.clone() for k, v in training.model.state_dict().items() if not k.startswith("Teacher.")}
    return [{k: v for k, v in r.items() if k.startswith(("loss.", "hmean"))} for r in reports], state


@pytest.mark.parametrize(
    "kind",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)
@pytest.mark.parametrize("settings", [[], ["run.precision=bf16"], ["run.channels_last=false"], ["data.on_device=true"]])
def test_a_run_with_stored_answers_equals_one_with_the_teacher_bit_for_bit(
    cfg: CMLConfig, settings: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every loss part of every epoch, and with them every gradient: the weights after two epochs are equal."""
    changed = override(cfg, settings)
    assert isinstance(changed, CMLConfig)
    device = torch.device(kind)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # else two runs of the same differ on a GPU
    live = losses_and_weights(build_training(changed, build_model(changed), device))
    shop = Shop(changed, tmp_path, device=device)
    training = build_training(changed, build_model(changed, with_teacher=False), device)
    stored = losses_and_weights(dataclasses.replace(training, teacher=shop.reader))
    assert (shop.live, shop.asked, shop.prepared) == (0, [(Piece(0, 0), False), (Piece(1, 0), False)], [Piece(1, 0)])
    assert stored[0] == live[0]
    assert any(report["loss.distill.Student"] > 0 for report in live[0])
    assert stored[1].keys() == live[1].keys()
    assert all(torch.equal(stored[1][name], value) for name, value in live[1].items())


def first_batch(cfg: CMLConfig) -> Loaded:
    training = build_training(cfg, build_model(cfg, with_teacher=False), CPU)
    training.sampler.set_epoch(0)
    return next(iter(training.loader))


@pytest.mark.parametrize("on_device", [False, True])
def test_without_a_store_the_answers_are_the_same(cfg: CMLConfig, tmp_path: Path, on_device: bool) -> None:
    cfg = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, on_device=on_device))
    batch = first_batch(cfg)
    stored, alone = Shop(cfg, tmp_path), Shop(cfg, tmp_path / "none", able=False)
    assert torch.equal(stored.reader(batch), alone.reader(batch))
    assert (stored.live, alone.live) == (0, len(batch.keys))


def test_an_answer_to_another_picture_is_not_taken(cfg: CMLConfig, tmp_path: Path, small_set: Path) -> None:
    """One that could not be read for a moment, while answers were made or while a trial trained."""
    batch = first_batch(cfg)
    right = Shop(cfg, tmp_path / "right").reader(batch)
    picture = Path(batch.paths[1])
    away = picture.with_suffix(".away")
    picture.rename(away)
    try:
        shop = Shop(cfg, tmp_path / "odd")
        shop.ensure(Piece(0, 0), 0, False)
        replaced = first_batch(cfg)
    finally:
        away.rename(picture)
    assert torch.equal(shop.reader(batch), right)
    assert shop.live >= 1
    live = build_teacher(cfg, CPU)(replaced.images)
    assert torch.equal(Shop(cfg, tmp_path / "later").reader(replaced), live)
    assert not torch.equal(live[1], right[1])


def test_an_answer_of_another_kind_of_device_is_not_taken(cfg: CMLConfig, tmp_path: Path) -> None:
    """Which may have warped the picture otherwise: the trial asks a teacher of its own, and that is counted."""
    cfg = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, on_device=True))
    batch = first_batch(cfg)
    shop = Shop(cfg, tmp_path)
    right = shop.reader(batch)
    assert shop.live == 0
    shop.reader._kind = "cuda"
    assert torch.equal(shop.reader(batch), right)
    assert shop.live == len(batch.keys)


def test_a_piece_that_was_cut_is_asked_for_again(cfg: CMLConfig, tmp_path: Path) -> None:
    batch = first_batch(cfg)
    shop = Shop(cfg, tmp_path)
    right = shop.reader(batch)
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    shop.reader._kept.clear()
    shop.maker.make = lambda piece: None  # type: ignore[assignment,method-assign,return-value]  # says it is there
    made = PieceMaker(cfg, shop.store, CPU)

    def ensure(piece: Piece, answers: int, broken: bool) -> bool:
        shop.asked.append((piece, broken))
        return bool(made.make(piece)) if broken else True

    shop.reader._ensure = ensure
    assert torch.equal(shop.reader(batch), right)
    assert shop.asked[-2:] == [(Piece(0, 0), False), (Piece(0, 0), True)]
    assert shop.live == 0


def test_the_digest_moves_with_each_ingredient_and_with_nothing_else(cfg: CMLConfig, tmp_path: Path) -> None:
    def digest(*settings: str, device: str = "cpu") -> str:
        changed = override(cfg, settings)
        assert isinstance(changed, CMLConfig)
        return answers_digest(changed, read_train(changed), device, teacher_threads(changed))

    same = [
        "data.augment.copy_paste.cache_mib=1",
        "data.batch_size=5",
        "loss.distill.weight=3",
        "optim.lr=1",
        "data.epoch_size=7",
        "teacher.store_mib=1",
    ]
    assert {digest(), *(digest(setting) for setting in same)} == {digest()}
    changed = [
        *("run.seed=5", "data.augment.rotate_degrees=3", "data.augment.copy_paste.enabled=true"),
        *("loss.distill.threshold=0.4", "run.precision=bf16", "run.threads=2", "data.normalize.mean=[0,0,0]"),
        *("teacher.model=Student", "run.channels_last=false", "data.on_device=true"),
    ]
    digests = [digest(), *(digest(setting) for setting in changed), digest(device="cuda")]
    assert len(set(digests)) == len(digests)


def test_a_picture_or_label_that_changed_is_another_digest(cfg: CMLConfig, tmp_path: Path) -> None:
    samples = read_train(cfg)
    before = answers_digest(cfg, samples, "cpu", 1)
    assert answers_digest(cfg, samples[1:], "cpu", 1) != before
    touched = tmp_path / samples[0].image.name
    touched.write_bytes(samples[0].image.read_bytes())
    assert answers_digest(cfg, [dataclasses.replace(samples[0], image=touched), *samples[1:]], "cpu", 1) != before


def test_a_teacher_whose_weights_changed_under_the_same_name_is_another_digest(
    cfg: CMLConfig, teacher_file: Path, tmp_path: Path
) -> None:
    def digest(file: Path) -> str:
        named = override(cfg, [f"teacher.weights={file}"])
        assert isinstance(named, CMLConfig)
        return answers_digest(named, read_train(named), "cpu", 1)

    copy = tmp_path / "teacher.safetensors"
    copy.write_bytes(teacher_file.read_bytes())
    assert digest(copy) == digest(teacher_file)
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    assert digest(copy) != digest(teacher_file)


def test_each_key_near_the_teacher_is_decided_upon() -> None:
    """A key that is new here decides an answer, and then belongs among the ingredients, or it does not."""
    idle = (
        *("data.val", "data.val_size", "data.keep", "data.keep_size", "data.test"),
        *("data.batch_size", "data.epoch_size", "data.num_workers", "data.cache_mib"),
        *("data.max_failed", "data.targets"),
        *("run.new_parts_steps", "run.evaluate_start", "run.cuda_graphs"),
        *("teacher.shared", "teacher.store", "teacher.store_mib", "teacher.producers", "teacher.gpus_per_producer"),
    )
    keys = [key for key in flatten(CMLConfig()) if key.split(".")[0] in ("data", "run", "teacher")]
    undecided = [key for key in keys if not any(f"{key}.".startswith(f"{known}.") for known in (*idle, *INGREDIENTS))]
    assert undecided == []


def test_threads_of_the_environment_that_are_no_number_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert threads_of_environment() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "abc")
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS: expected a number of threads, found abc"):
        threads_of_environment()


def test_what_moves_the_answers_is_not_shared_and_says_why(cfg: CMLConfig) -> None:
    nothing = ["optim.lr", "loss.distill.weight", "data.batch_size", "data.augment.copy_paste.cache_mib"]
    assert why_not_shared(cfg, nothing) is None
    assert "data.augment.scale_max is searched" in str(why_not_shared(cfg, ["optim.lr", "data.augment.scale_max"]))
    assert "data.mix is searched" in str(why_not_shared(cfg, ["data.mix"]))
    assert "loss.distill.threshold is searched" in str(why_not_shared(cfg, ["loss.distill.threshold"]))
    drifting = override(cfg, ["teacher.batch_stats=true"])
    assert isinstance(drifting, CMLConfig)
    assert "batch_stats" in str(why_not_shared(drifting, []))


class Producing:
    """Writes pieces of noise and counts them."""

    def __init__(self, store: TeacherStore, turns: Turns) -> None:
        self.store, self.turns = store, turns
        self.made: list[Piece] = []
        self.at_work = 0

    async def __call__(self, piece: Piece) -> Made:
        self.at_work += 1
        assert self.at_work == 1  # one at a time
        await asyncio.sleep(0.01)
        keys = self.turns.keys_of(piece)
        noise = torch.randint(0, 256, (len(keys), 512), dtype=torch.uint8)
        size = self.store.write(piece, keys, [Answer(0, row) for row in noise])
        self.made.append(piece)
        self.at_work -= 1
        return Made(len(keys), size, 0.01)


@pytest.fixture
def producing(tmp_path: Path) -> Producing:
    return Producing(TeacherStore(str(tmp_path), "digest"), Turns(0, 2 * PIECE))


def test_many_who_ask_for_a_piece_have_it_made_once(producing: Producing) -> None:
    async def story() -> Desk:
        desk = Desk(producing.store, [producing], limit=2**30, turns=3)
        pieces = [Piece(0, 0), Piece(0, 1), Piece(0, 0)]
        assert all(await asyncio.gather(*(desk.ensure(f"t{i}", p, PIECE) for i in range(5) for p in pieces)))
        assert await desk.ensure("late", Piece(0, 0), PIECE)
        return desk

    desk = asyncio.run(story())
    assert sorted(p.number for p in producing.made) == [0, 1]
    stats = desk.stats()
    assert (stats.made, stats.read, stats.live) == (2 * PIECE, 16 * PIECE, 0)
    assert stats.hit_rate == pytest.approx(14 / 16)
    assert stats.seconds_saved == pytest.approx(0.02 * 7)
    # Of one trial: what it read, by the mean of a picture's 0.01 s / PIECE.
    saved = {"teacher.answers_read": 3 * PIECE, "teacher.saved_s": pytest.approx(0.03)}
    assert desk.metrics_of("t1") == saved
    assert desk.metrics_of("late")["teacher.answers_read"] == PIECE
    assert desk.metrics_of("never") == {"teacher.answers_read": 0, "teacher.saved_s": 0}


def test_a_broken_piece_is_made_again_and_counted(producing: Producing) -> None:
    async def story() -> Desk:
        desk = Desk(producing.store, [producing], limit=2**30, turns=3)
        assert await desk.ensure("t", Piece(0, 0), PIECE)
        assert await desk.ensure("t", Piece(0, 0), 0, broken=True)
        return desk

    desk = asyncio.run(story())
    assert producing.made == [Piece(0, 0)] * 2
    assert desk.stats().broken == 1


def test_a_full_store_gives_up_turns_that_no_running_trial_needs(producing: Producing) -> None:
    async def story() -> Desk:
        # Of noise, which nothing compresses: four pieces.
        desk = Desk(producing.store, [producing], limit=5 * PIECE * 512, turns=3)
        for turn in (0, 1):
            for number in (0, 1):
                assert await desk.ensure("ahead", Piece(turn, number), PIECE)
                assert await desk.ensure("behind", Piece(0, number), PIECE)
        desk.started("new")
        desk.ended("behind")
        assert not await desk.ensure("ahead", Piece(2, 0), PIECE)  # the new one is going to read turn 0
        desk.ended("new")
        assert await desk.ensure("new", Piece(0, 0), PIECE)  # its worker has not heard of its end yet
        assert await desk.ensure("ahead", Piece(2, 0), PIECE)
        return desk

    desk = asyncio.run(story())
    assert set(producing.store.sizes()) == {1, 2}
    assert desk.stats().reason == "teacher.store_mib is reached, and running trials need all that is stored"


def test_pictures_of_new_parts_come_before_the_first_turn(producing: Producing) -> None:
    async def story() -> None:
        desk = Desk(producing.store, [producing], limit=3 * PIECE * 512, turns=3)
        assert await desk.ensure("t", Piece(10**6, 0), PIECE)
        assert await desk.ensure("t", Piece(10**6, 1), PIECE)
        assert not await desk.ensure("u", Piece(0, 0), PIECE)  # the other one still trains its new parts
        assert await desk.ensure("t", Piece(0, 0), PIECE)

    asyncio.run(story())
    assert set(producing.store.sizes()) == {0}


def test_a_full_disk_stores_nothing(producing: Producing) -> None:
    desk = Desk(producing.store, [producing], limit=2**30, turns=3, least_free=2**62)
    assert not asyncio.run(desk.ensure("t", Piece(0, 0), PIECE))
    assert producing.made == []


def test_a_producer_that_fails_leaves_the_trial_to_itself_and_does_better_next_time(producing: Producing) -> None:
    fails = [True]

    async def unsteady(piece: Piece) -> Made:
        if fails.pop() if fails else False:
            raise DataError("x.jpg: is no picture that OpenCV can decode")
        return await producing(piece)

    async def story() -> Desk:
        desk = Desk(producing.store, [unsteady], limit=2**30, turns=3)
        assert not await desk.ensure("t", Piece(0, 0), PIECE)
        assert await desk.ensure("t", Piece(0, 0), PIECE)
        return desk

    assert asyncio.run(story()).stats().reason == "x.jpg: is no picture that OpenCV can decode"


def test_answers_left_from_before_are_taken(producing: Producing) -> None:
    asyncio.run(producing(Piece(0, 0)))
    desk = Desk(producing.store, [producing], limit=2**30, turns=3)
    assert asyncio.run(desk.ensure("t", Piece(0, 0), PIECE))
    assert (desk.stats().made, desk.stats().hit_rate) == (0, 1.0)


def test_two_desks_of_two_sweeps_may_work_on_one_store(producing: Producing) -> None:
    """Each sees what the other has made; where one has taken a turn out, the other has it made again."""
    other = Producing(TeacherStore(producing.store.place, "digest"), producing.turns)

    async def story() -> tuple[Desk, Desk]:
        one = Desk(producing.store, [producing], limit=2**30, turns=9)
        two = Desk(other.store, [other], limit=5 * PIECE * 512, turns=9)
        pieces = [Piece(turn, number) for turn in (0, 1) for number in (0, 1)]
        assert all(await asyncio.gather(*(desk.ensure("t", p, PIECE) for p in pieces for desk in (one, two))))
        for piece in pieces:
            keys = producing.turns.keys_of(piece)
            answers = producing.store.read(piece, keys)
            assert answers is not None
            assert len(answers) == len(keys)
        assert await two.ensure("t", Piece(2, 0), PIECE)  # full: turn 0 is taken out
        assert producing.store.read(Piece(0, 0), producing.turns.keys_of(Piece(0, 0))) is None
        assert await one.ensure("late", Piece(0, 0), PIECE)
        assert producing.store.read(Piece(0, 0), producing.turns.keys_of(Piece(0, 0))) is not None
        return one, two

    one, two = asyncio.run(story())
    assert producing.made[-1] == Piece(0, 0)
    assert (one.stats().reason, two.stats().reason) == ("", "")


def test_what_answers_took_and_saved_adds_up_over_resumes(tmp_path: Path) -> None:
    first = Teaching(None, None, tmp_path)  # type: ignore[arg-type]  # nobody is asked
    first._kept(TeachingStats(made=40, read=100, live=2, broken=1, num_bytes=4321, seconds=8.0))
    resumed = teaching_of(None, None, tmp_path)  # type: ignore[arg-type]
    assert resumed._kept(TeachingStats()).read == 100  # its trials had ended
    total = resumed._kept(TeachingStats(made=10, read=50, num_bytes=679, seconds=2.0))
    assert total == TeachingStats(50, 150, 2, 1, 5000, 10.0)
    assert teaching_of(None, None, tmp_path).before == total  # type: ignore[arg-type]
    assert teaching_of(None, None, None).before == TeachingStats()  # type: ignore[arg-type]
