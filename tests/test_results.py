import io
import json
from dataclasses import fields, replace

import pytest
from rich.console import Console

from decant.score.results import (
    PAPER,
    Comparison,
    ResultRow,
    Summary,
    read_comparisons,
    read_results,
    results_markdown,
    results_table,
    retained_gain,
    summarize,
    write_comparisons,
    write_results,
)

# On test: members 0.50 and 0.60, ensemble 0.65. Of its gain of 0.10, students keep 0.05 and 0.10.
STUDENT = ResultRow("student", "test", chosen=True, variant="temperature 2", wer=0.1)
ROWS = [
    replace(STUDENT, seed=1, frame_accuracy=0.65, wer_low=0.05, wer_high=0.15),
    replace(STUDENT, seed=0, frame_accuracy=0.60, wer_low=0.07, wer_high=0.13),
    ResultRow("student", "dev", False, "temperature 1", seed=0, frame_accuracy=0.55),
    ResultRow("student", "test", False, "temperature 1", seed=0, frame_accuracy=0.0, wer=1.0),
    ResultRow("ensemble", "test", True, frame_accuracy=0.65, wer=0.1, lm_weight=9.0),
    ResultRow("ensemble", "dev", True, frame_accuracy=0.9, wer=0.01, lm_weight=9.0),
    ResultRow("baseline", "test", True, seed=0, frame_accuracy=0.50, wer=0.14, lm_weight=10.0, seconds=30.0),
    ResultRow("baseline", "test", True, seed=1, frame_accuracy=0.60, wer=0.10, lm_weight=8.0, seconds=40.0),
    ResultRow("monophone", "test", True, words=700, wer=0.2, wer_low=0.18, wer_high=0.22, parameters=12345),
]


FIELDS = sorted(field.name for field in fields(ResultRow))


def shown(table, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_a_row_has_the_fields_of_the_format_and_no_others():
    assert FIELDS == sorted(
        "system temperature generation variant chosen split seed frames frame_accuracy words wer wer_low wer_high "
        "parameters seconds lm_weight word_insertion_penalty config rescored_wer rescored_wer_low rescored_wer_high "
        "rescored_lm_weight rescored_word_insertion_penalty".split()
    )


def test_results_are_read_as_they_were_written_sorted_by_system_variant_split_and_seed(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, ROWS)
    rows = read_results(path)
    assert rows[0] == ROWS[-1]
    assert set(rows) == set(ROWS)
    assert [row.system for row in rows[1:]] == ["baseline"] * 2 + ["ensemble"] * 2 + ["student"] * 4
    assert [row.seed for row in rows[-2:]] == [0, 1]


def test_the_order_of_rows_does_not_change_the_file(tmp_path):
    write_results(tmp_path / "a", ROWS)
    write_results(tmp_path / "b", reversed(ROWS))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(json.loads((tmp_path / "a").read_text())[0]) == FIELDS


def test_two_rows_for_the_same_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two rows for monophone '', split test, seed None"):
        write_results(tmp_path / "results.json", [*ROWS, replace(ROWS[-1], wer=0.3)])
    assert not list(tmp_path.iterdir())


def test_a_figure_that_is_not_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path / "results.json", [replace(ROWS[0], wer=float("nan"))])


PARROT = '[{"system": "parrot", "split": "dev", "chosen": true}]'


@pytest.mark.parametrize("text", ["[", "3", '[{"system": "baseline"}]', '[{"word_error": 1}]', PARROT])
def test_a_file_of_something_else_is_refused_by_name(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"results\.json: not a list of results"):
        read_results(tmp_path / "results.json")


def test_the_summary_is_the_mean_and_the_sample_standard_deviation_of_what_was_measured():
    rows = [replace(ROWS[0], wer=wer) for wer in (0.1, 0.2, 0.3, None)]
    assert summarize(rows, "wer") == Summary(pytest.approx(0.2), pytest.approx(0.1), 3)
    assert summarize(rows[:1], "wer") == Summary(0.1, None, 1)
    assert summarize(rows[3:], "wer") is None


def test_retained_gain_is_the_part_of_the_ensembles_gain_that_each_chosen_student_keeps():
    gain = retained_gain(ROWS, "frame_accuracy")
    assert gain == Summary(pytest.approx(0.75), pytest.approx(0.5 / 2**0.5), 2)  # 0.5 and 1.0
    assert retained_gain(ROWS, "wer").mean == pytest.approx(1.0)  # 0.12 -> 0.10, students 0.10


def test_the_papers_retained_gain_is_86_and_100_per_cent():
    assert retained_gain(PAPER, "frame_accuracy").mean == pytest.approx(1.9 / 2.2)
    assert retained_gain(PAPER, "wer").mean == pytest.approx(1.0)


@pytest.mark.parametrize("accuracy", [0.55, 0.54])
def test_retained_gain_is_undefined_where_the_ensemble_is_not_better(accuracy):
    ensemble = ResultRow("ensemble", "test", chosen=True, frame_accuracy=accuracy, wer=0.12)
    rows = [ensemble, *(row for row in ROWS if row.system != "ensemble")]
    assert retained_gain(rows, "frame_accuracy") is None
    assert retained_gain(rows, "wer") is None
    assert results_markdown(rows).count(": undefined") == 2
    assert shown(results_table(rows)).count(": undefined") == 2


@pytest.mark.parametrize("system", ["baseline", "ensemble", "student"])
def test_retained_gain_is_undefined_without_one_of_the_three_systems(system):
    assert retained_gain([row for row in ROWS if row.system != system], "frame_accuracy") is None
    assert retained_gain([], "wer") is None


def test_the_markdown_has_a_line_for_each_variant_with_mean_spread_and_interval():
    lines = results_markdown(ROWS).splitlines()
    assert lines[2:10] == [
        "| monophone |  | 1 | - | - | - | 20.0 | 18.0 to 22.0 | - | 12,345 | - |",
        "| baseline |  | 2 | - | 55.0 ± 7.1 | - | 12.0 ± 2.8 | - | 8, 10 | - | 35 |",
        "| ensemble |  | 1 | 90.0 | 65.0 | 1.0 | 10.0 | - | 9 | - | - |",
        "| student | temperature 1 | 1 | 55.0 | 0.0 | - | 100.0 | - | - | - | - |",
        "| student | temperature 2 * | 2 | - | 62.5 ± 3.5 | - | 10.0 ± 0.0 | 6.0 to 14.0 | - | - | - |",
        "| baseline | the paper's | 1 | - | 58.9 | - | 10.9 | - | - | - | - |",
        "| ensemble | the paper's | 1 | - | 61.1 | - | 10.7 | - | - | - | - |",
        "| student | the paper's | 1 | - | 60.8 | - | 10.7 | - | - | - | - |",
    ]
    assert "- Retained gain in frame accuracy: 75 ± 35% (2 runs). The paper: 86%." in lines
    assert "- Retained gain in WER: 100 ± 0% (2 runs). The paper: 100%." in lines


def test_the_table_shows_whole_figures_on_a_terminal_of_80_columns():
    text = shown(results_table(ROWS))
    for figure in ("55.0 ± 7.1", "62.5 ± 3.5", "18.0 to 22.0", "temperature 2 *", "75 ± 35%", "the paper's"):
        assert figure in text
    assert "…" not in text


def test_an_experiment_without_rows_still_has_a_table():
    assert "60.8" in shown(results_table([]))
    assert "60.8" in results_markdown([])


def test_comparisons_are_read_as_they_were_written_and_shown_with_their_intervals(tmp_path):
    comparisons = [Comparison("student", "ensemble", "frame_accuracy", -0.008, -0.012, -0.0041),
                   Comparison("student", "ensemble", "wer", -0.005, -0.016, 0.006)]
    write_comparisons(tmp_path / "comparisons.json", comparisons)
    assert read_comparisons(tmp_path / "comparisons.json") == comparisons
    assert ("student less ensemble, 95% interval of a paired bootstrap over test's utterances: "
            "frame accuracy -0.8 (-1.2 to -0.4), WER -0.5 (-1.6 to +0.6).") in results_markdown(ROWS, comparisons)


def test_several_test_sets_stand_side_by_side():
    rows = [replace(row, split=name) for row in ROWS for name in (
        [row.split] if row.split == "dev" else ["test_clean", "test_other"])]
    rows = [replace(row, wer=0.3) if (row.system, row.split) == ("ensemble", "test_other") else row for row in rows]
    lines = results_markdown(rows, [Comparison("student", "ensemble", "wer", 0.1, 0.0, 0.2, "test_other")]).splitlines()
    assert lines[0].split(" | ")[3:10] == [
        "frame accuracy, dev %", "frame accuracy, test_clean %", "frame accuracy, test_other %", "WER, dev %",
        "WER, test_clean %", "95% interval", "WER, test_other %"]
    assert "| ensemble |  | 1 | 90.0 | 65.0 | 65.0 | 1.0 | 10.0 | - | 30.0 | - | 9 | - | - |" in lines
    assert "| ensemble | the paper's | 1 | - | 61.1 | - | - | 10.7 | - | - | - | - | - | - |" in lines
    assert "- Retained gain in WER on test_clean: 100 ± 0% (2 runs). The paper: 100%." in lines
    assert any(line.startswith("- Retained gain in WER on test_other: undefined") for line in lines)
    assert any("over test_other's utterances: WER +10.0 (+0.0 to +20.0)." in line for line in lines)
    text = shown(results_table(rows))
    assert "…" not in text and text.count("the paper's") == 2 * 3
    assert text.index("clean %") < text.index("other %") < text.index("Retained gain in WER on test_clean")
