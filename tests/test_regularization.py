from dataclasses import replace

import numpy as np
import pytest

from decant.frame_store import pack
from decant.regularization import (
    PAPER,
    RegularizationConfig,
    RegularizationRow,
    read_regularization,
    recovered,
    regularization_markdown,
    share_of,
    write_regularization,
)
from decant.results import Summary

# Of the 0.2 and 0.4 that two draws' hard labels lose on test, their soft targets keep half and three quarters.
ROWS = [
    RegularizationRow(1.0, "hard", 1, train=0.9, dev=0.8, dev_last=0.75, test=0.7),
    RegularizationRow(0.03, "hard", 1, 1.0, 0.5, 0.45, 0.5),
    RegularizationRow(0.03, "soft on mixtures", 1, 0.9, 0.6, 0.6, 0.6),
    RegularizationRow(0.03, "hard", 2, 1.0, 0.4, 0.35, 0.3),
    RegularizationRow(0.03, "soft on mixtures", 2, 0.9, 0.6, 0.6, 0.6),
]


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


def test_what_soft_targets_recover_is_measured_draw_by_draw():
    assert recovered(ROWS) == Summary(pytest.approx(0.625), pytest.approx(0.125 * 2**0.5), 2)
    assert recovered(PAPER).mean == pytest.approx(0.868, abs=5e-4)


def test_where_hard_labels_lose_nothing_nothing_is_recovered():
    rows = [replace(row, test=0.7) for row in ROWS]
    assert recovered(rows) is None
    assert "keep nothing: hard labels lose none" in regularization_markdown(rows)


def test_the_table_has_the_papers_three_rows_and_ours():
    lines = regularization_markdown(ROWS).splitlines()
    assert lines[0] == ("| training data | targets | runs | frame accuracy, train % | dev %, best epoch | "
                        "dev %, last epoch | test % |")
    assert lines[2:5] == ["| 100% | hard | 1 | 90.0 | 80.0 | 75.0 | 70.0 |",
                          "| 3% | hard | 2 | 100.0 ± 0.0 | 45.0 ± 7.1 | 40.0 ± 7.1 | 40.0 ± 14.1 |",
                          "| 3% | soft on mixtures | 2 | 90.0 ± 0.0 | 60.0 ± 0.0 | 60.0 ± 0.0 | 60.0 ± 0.0 |"]
    assert lines[5] == "| 100% | hard, the paper's | 1 | 63.4 | - | - | 58.9 |"
    assert "keep 62 ± 18%. The paper: 87%." in lines[-1]


def test_rows_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "regularization.json"
    write_regularization(path, ROWS)
    assert read_regularization(path) == ROWS
    path.write_text('[{"share": 1}]')
    with pytest.raises(ValueError, match="regularization.json: not a list of frame accuracies.*run stage 13 again"):
        read_regularization(path)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"temperature": 0.0}, {"num_seeds": 0},
                                   {"hard_label_weight": -1.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegularizationConfig(**wrong)
