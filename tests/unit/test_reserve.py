from ocr_ray.search.reserve import Reserve


def test_it_is_filled_when_all_that_have_started_train_and_others_are_to_come() -> None:
    filled: list[str] = []
    reserve = Reserve(trials=5, fill_up=lambda: filled.append(at))
    reserve.trial_starts("a")
    reserve.trial_starts("b")
    at = "a trains, b starts"
    reserve.trial_trains("a")
    at = "b trains too"
    reserve.trial_trains("b")
    reserve.trial_trains("b")
    reserve.trial_starts("c")
    at = "b trains, c starts"
    reserve.trial_trains("b")
    reserve.trial_ends("c")
    reserve.trial_starts("d")
    at = "d trains, c failed before it came to it"
    reserve.trial_trains("d")
    reserve.trial_starts("e")
    at = "none is left"
    reserve.trial_trains("e")
    assert filled == ["b trains too", "d trains, c failed before it came to it"]


def test_a_cluster_that_does_not_answer_stops_no_sweep() -> None:
    def fail() -> None:
        raise ConnectionError

    reserve = Reserve(trials=2, fill_up=fail)
    reserve.trial_starts("a")
    reserve.trial_trains("a")
