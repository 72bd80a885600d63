from pathlib import Path
from types import SimpleNamespace

import pytest

from decant.experiment import Run
from decant.lang.g2p import write_g2p
from decant.score.g2p_results import g2p_notes, g2p_rows, write_g2p_rows
from decant.score.scoring import WordErrors, read_alignments, word_errors_without, write_alignments

REFS = {"u1": ["a", "made", "b"], "u2": ["made"], "u3": []}
HYPS = {"u1": ["a", "mad", "c"], "u2": ["made", "d"], "u3": ["e"]}


def test_errors_at_left_out_words_do_not_count_and_insertions_do():
    assert word_errors_without(REFS, HYPS, {"made"}) == WordErrors(substitutions=1, deletions=0, insertions=2, words=2)
    assert word_errors_without(REFS, HYPS, {}) == WordErrors(substitutions=2, deletions=0, insertions=2, words=4)


def test_alignments_are_read_back(tmp_path: Path):
    write_alignments(tmp_path / "a.txt", REFS, HYPS)
    assert read_alignments(tmp_path / "a.txt") == (REFS, HYPS)


def test_the_report_says_the_rate_with_and_without_made_words_of_all_runs_together(tmp_path: Path):
    write_g2p({"made": ("m", "d")}, tmp_path / "g2p.txt")
    systems = [SimpleNamespace(run=run, label=run.label) for seed in (1, 2) for run in [Run("baseline", seed=seed)]]
    for system in systems:
        write_alignments(tmp_path / f"{system.label}_test.txt", REFS, HYPS)
    write_g2p_rows(tmp_path / "g2p.json", g2p_rows(tmp_path, systems, ["test", "test_other"], tmp_path / "g2p.txt"))
    assert g2p_notes(tmp_path / "g2p.json") == [
        "baseline, test: WER 150.0% without the 4 of 8 words whose pronunciations G2P made, 100.0% with them."]


@pytest.mark.parametrize("made", [{}, {"other": ("o",)}])
def test_where_no_made_word_was_spoken_the_report_says_nothing(tmp_path: Path, made):
    write_g2p(made, tmp_path / "g2p.txt")
    run = Run("baseline", seed=1)
    write_alignments(tmp_path / f"{run.label}_test.txt", REFS, HYPS)
    rows = g2p_rows(tmp_path, [SimpleNamespace(run=run, label=run.label)], ["test"], tmp_path / "g2p.txt")
    write_g2p_rows(tmp_path / "g2p.json", rows)
    assert g2p_notes(tmp_path / "g2p.json") == []
