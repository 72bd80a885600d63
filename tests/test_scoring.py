import numpy as np
import pytest

from decant.score.scoring import (
    ScoringConfig,
    WordErrors,
    choose_setting,
    paired_difference,
    wer_interval,
    word_errors,
    write_alignments,
)

REFS = {"u1": "a b c d".split(), "u2": "e f".split(), "u3": "g".split()}
HYPS = {"u1": "a x c".split(), "u2": "e f".split(), "u3": "h g i".split()}


def test_errors_are_counted_by_kind_over_all_utterances():
    errors = word_errors(REFS, HYPS)
    assert errors == WordErrors(substitutions=1, deletions=1, insertions=2, words=7)
    assert errors.total == 4
    assert errors.wer == 4 / 7


def test_a_perfect_hypothesis_has_no_errors_and_an_interval_of_nothing():
    assert word_errors(REFS, REFS) == WordErrors(0, 0, 0, 7)
    assert wer_interval(REFS, REFS) == (0.0, 0.0)


@pytest.mark.parametrize("word", ["***", "", " ", "<eps>", "*"])
def test_no_word_is_taken_for_the_gap(tmp_path, word):
    refs, hyps = {"u1": ["a", word, "b"]}, {"u1": ["a", "c", "b"]}
    assert word_errors(refs, hyps) == WordErrors(substitutions=1, deletions=0, insertions=0, words=3)
    assert wer_interval(refs, hyps) == pytest.approx((1 / 3, 1 / 3))
    assert word_errors(hyps, refs) == WordErrors(substitutions=1, deletions=0, insertions=0, words=3)
    assert word_errors(refs, refs) == WordErrors(0, 0, 0, 3)
    assert word_errors(refs, {"u1": ["a", "b"]}) == WordErrors(substitutions=0, deletions=1, insertions=0, words=3)
    write_alignments(tmp_path / "per_utt", refs, hyps)
    assert (tmp_path / "per_utt").read_text().splitlines()[2:] == [
        f"u1 op  C {'S'.ljust(max(1, len(word)))} C", "u1 #csid 2 1 0 0"]


def test_an_unknown_word_that_was_recognised_is_never_right(tmp_path):
    refs, hyps = {"u1": ["a", "<UNK>", "QZX"]}, {"u1": ["a", "<UNK>", "<UNK>"]}
    assert word_errors(refs, hyps) == WordErrors(substitutions=2, deletions=0, insertions=0, words=3)
    assert wer_interval(refs, hyps) == pytest.approx((2 / 3, 2 / 3))
    write_alignments(tmp_path / "per_utt", refs, hyps)
    assert (tmp_path / "per_utt").read_text().splitlines()[-1] == "u1 #csid 1 2 0 0"


def test_an_utterance_on_one_side_only_is_named():
    with pytest.raises(ValueError, match="utterance u2 has no hypothesis"):
        word_errors(REFS, {"u1": HYPS["u1"], "u3": HYPS["u3"]})
    with pytest.raises(ValueError, match="utterance u4 has no reference"):
        word_errors(REFS, HYPS | {"u4": ["a"]})
    with pytest.raises(ValueError, match="utterance u2 has no hypothesis"):
        wer_interval(REFS, {"u1": HYPS["u1"], "u3": HYPS["u3"]})


def test_references_without_words_have_no_word_error_rate():
    with pytest.raises(ValueError, match="the references hold no words"):
        word_errors({"u1": []}, {"u1": ["a"]})


def test_the_interval_is_that_of_the_mean_over_utterances():
    # 100 utterances of one word, 20 of them wrong: the rate's standard error is sqrt(0.2 x 0.8 / 100) = 0.04.
    refs = {f"u{i}": ["a"] for i in range(100)}
    hyps = {f"u{i}": ["b" if i < 20 else "a"] for i in range(100)}
    low, high = wer_interval(refs, hyps)
    assert low == pytest.approx(0.2 - 1.96 * 0.04, abs=0.01)
    assert high == pytest.approx(0.2 + 1.96 * 0.04, abs=0.01)


def test_the_interval_is_the_same_each_time_and_in_any_order_of_utterances():
    backwards = {utterance: HYPS[utterance] for utterance in reversed(HYPS)}
    assert wer_interval(REFS, HYPS) == wer_interval(dict(reversed(REFS.items())), backwards)


def test_the_interval_does_not_go_below_zero():
    low, high = wer_interval(REFS, REFS | {"u3": ["h"]})
    assert low == 0.0
    assert high > 1 / 7


def test_the_setting_with_the_fewest_errors_is_chosen():
    assert choose_setting({(8.0, 0.0): 4, (10.0, 0.0): 1, (12.0, 1.0): 4}) == (10.0, 0.0)


@pytest.mark.parametrize(("tied", "chosen"), [((9.0, 10.0, 11.0), 10.0), ((9.0, 10.0), 10.0), ((9.0,), 9.0)])
def test_of_equally_good_settings_the_middle_or_the_larger_of_two_middle_ones_is_chosen(tied, chosen):
    errors = {(weight, 0.5): 3 for weight in (20.0, 8.0)} | {(weight, 0.5): 0 for weight in reversed(tied)}
    assert choose_setting(errors) == (chosen, 0.5)


def test_alignments_are_written_in_columns_with_their_counts(tmp_path):
    hyps = {"u1": ["three", "two"], "u2": []}
    write_alignments(tmp_path / "per_utt", {"u2": ["a"], "u1": ["one", "two"]}, hyps)
    assert (tmp_path / "per_utt").read_text() == """\
u1 ref one   two
u1 hyp three two
u1 op  S     C
u1 #csid 1 1 0 0
u2 ref a
u2 hyp ***
u2 op  D
u2 #csid 0 0 0 1
"""


def test_the_alignment_of_an_utterance_without_words_has_no_columns(tmp_path):
    write_alignments(tmp_path / "per_utt", {"u1": [], "u2": ["a"]}, {"u1": [], "u2": ["a"]})
    assert (tmp_path / "per_utt").read_text().splitlines()[:2] == ["u1 ref", "u1 hyp"]


@pytest.mark.parametrize(("weights", "penalties"), [((), (0.0,)), ((8.0, 0.0), (0.0,)), ((8.0,), ())])
def test_a_grid_without_settings_or_with_a_weight_of_zero_is_refused(weights, penalties):
    with pytest.raises(ValueError, match="lm_weights needs one or more"):
        ScoringConfig(weights, penalties)


def test_a_paired_difference_is_sure_where_both_systems_stumble_over_the_same_utterances():
    """By hand: 40 utterances of 10 words with 0 to 9 errors each; the second system makes one more everywhere."""
    errors, words = np.arange(40) % 10, np.full(40, 10)
    assert paired_difference(errors, errors + 1, words) == pytest.approx((-0.1, -0.1, -0.1))


def test_a_paired_differences_interval_is_that_of_the_mean_of_differences():
    """300 utterances of equal length: the interval of a mean, 1.96 standard errors on both sides."""
    difference = np.random.default_rng(1).normal(0.2, 1.0, 300)
    value, low, high = paired_difference(difference + 3, np.full(300, 3.0), np.ones(300))
    error = difference.std() / np.sqrt(300)
    assert value == pytest.approx(difference.mean())
    assert (low, high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.1 * error)
