from dataclasses import replace

import pytest

from decant.score.regularization_results import (
    PAPER,
    RegularizationRow,
    read_regularization,
    recovered,
    regularization_markdown,
    write_regularization,
)
from decant.score.results import Summary

# Of the 0.2 and 0.4 that two draws' hard labels lose on test, their soft targets keep half and three quarters.
ROWS = [
    RegularizationRow(1.0, "hard", 1, train=0.9, dev=0.8, dev_last=0.75, test=0.7),
    RegularizationRow(0.03, "hard", 1, 1.0, 0.5, 0.45, 0.5),
    RegularizationRow(0.03, "soft on mixtures", 1, 0.9, 0.6, 0.6, 0.6),
    RegularizationRow(0.03, "hard", 2, 1.0, 0.4, 0.35, 0.3),
    RegularizationRow(0.03, "soft on mixtures", 2, 0.9, 0.6, 0.6, 0.6),
]


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
