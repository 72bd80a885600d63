import numpy as np
import pytest

from decant.distill.regularization import RegularizationConfig, share_of
from decant.nnet.frame_store import pack


def test_a_share_of_the_utterances_is_another_one_for_every_seed():
    store = pack((f"utterance_{u}", np.full((u + 1, 1), u), np.full(u + 1, u)) for u in range(50))
    draws = [share_of(store, 0.1, seed) for seed in (1, 1, 2)]
    assert all(len(draw.utterances) == 5 for draw in draws)
    assert draws[0].utterances == draws[1].utterances != draws[2].utterances
    for name, rows in draws[2].utterance_slices():
        number = int(name.removeprefix("utterance_"))
        assert draws[2].pdfs[rows].tolist() == [number] * (number + 1)


def test_copies_at_other_speeds_come_with_their_utterance():
    names = [f"{copy}utterance_{u}" for copy in ("", "sp0.9-", "sp1.1-") for u in range(50)]
    names.remove("sp1.1-utterance_7")  # which had no path to the end
    plain, copied = (pack((name, np.zeros((1, 1)), np.zeros(1)) for name in some) for some in (names[:50], names))
    for seed in range(20):
        drawn = set(share_of(plain, 0.1, seed).utterances)
        assert set(share_of(copied, 0.1, seed).utterances) == {
            name for name in names if name.removeprefix("sp0.9-").removeprefix("sp1.1-") in drawn}


def test_ids_that_look_like_copies_are_utterances_of_their_own_where_there_is_no_original():
    store = pack((f"sp{speaker:02d}-{u}", np.zeros((1, 1)), np.zeros(1)) for speaker in range(10) for u in range(10))
    assert len(share_of(store, 0.1, 1).utterances) == 10


def test_the_smallest_share_is_an_utterance():
    store = pack([("a", np.zeros((3, 1)), np.zeros(3)), ("b", np.zeros((4, 1)), np.zeros(4))])
    assert len(share_of(store, 0.01, seed=1).utterances) == 1


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"temperature": 0.0}, {"num_seeds": 0},
                                   {"hard_label_weight": -1.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegularizationConfig(**wrong)
