import math

import numpy as np
import pytest

from decant.hmm.state_tying import (
    DecisionTree,
    Split,
    StateTyingConfig,
    Statistics,
    accumulate,
    grow_tree,
    log_likelihood,
    monophone_tree,
    phone_questions,
    read_questions,
    read_tree,
    to_dot,
    write_tree,
)

PHONES = ("SIL", "x", "y")
GROUPS = [[phone] for phone in PHONES]
SINGLES = [frozenset([phone]) for phone in PHONES]


def moments(num_frames, mean, variance=1.0):
    return [num_frames, num_frames * mean, num_frames * (variance + mean**2)]


def two_phone_statistics() -> Statistics:
    """The middle state of x lies at 0 after silence or x, and at 10 after y, each with variance 1; all else at 0."""
    events, rows = [], []
    for phone in range(3):
        for state in range(5 if phone == 0 else 3):
            for left in range(3):
                for right in (0, 2):
                    events.append([left, phone, right, state])
                    rows.append(moments(50, 10.0 if (left, phone, state) == (2, 1, 1) else 0.0))
    return Statistics(np.array(events), np.array(rows, dtype=float))


def test_a_tree_of_two_phones_worked_out_by_hand():
    """11 roots and one split: the middle of x asks for y at its left. 200 frames at 0 and 100 at 10 have mean 10/3 and
    variance 1 + 200/9; apart they have 1 each, so the gain is 300/2 ln(1 + 200/9)."""
    tree, gain = grow_tree(two_phone_statistics(), PHONES, GROUPS, SINGLES, StateTyingConfig(num_leaves=12))
    assert tree.num_pdfs == 12
    assert tree.roots["x", 1] == Split(0, frozenset("y"), yes=6, no=7)
    assert [tree.pdf(("SIL", "SIL", "SIL"), state) for state in range(5)] == [0, 1, 2, 3, 4]
    assert [tree.pdf(("SIL", "x", "SIL"), state) for state in range(3)] == [5, 7, 8]
    assert [tree.pdf(("y", "x", "SIL"), state) for state in range(3)] == [5, 6, 8]
    assert [tree.pdf(("x", "y", "x"), state) for state in range(3)] == [9, 10, 11]
    assert gain == pytest.approx(150 * math.log(1 + 200 / 9) / (66 * 50))
    assert tree.label(np.array([[2, 1, 2, 1], [0, 1, 0, 1], [0, 0, 0, 4]])).tolist() == [6, 7, 4]


def test_a_triphone_that_was_never_seen_finds_its_leaf():
    tree, _ = grow_tree(two_phone_statistics(), PHONES, GROUPS, SINGLES, StateTyingConfig(num_leaves=12))
    assert tree.pdf(("y", "x", "x"), 1) == 6  # x at the right is in no event


def test_growing_stops_where_leaves_would_be_too_small_or_nothing_is_gained():
    statistics = two_phone_statistics()
    tree, _ = grow_tree(statistics, PHONES, GROUPS, SINGLES, StateTyingConfig(num_leaves=100, min_occupancy=100))
    assert tree.num_pdfs == 12  # 100 frames suffice for the one split that gains; no other gains anything
    tree, gain = grow_tree(statistics, PHONES, GROUPS, SINGLES, StateTyingConfig(num_leaves=100, min_occupancy=101))
    assert (tree.num_pdfs, gain) == (11, 0.0)


def test_fewer_leaves_than_trees_are_refused():
    with pytest.raises(ValueError, match="num_leaves is 5, but the phones' states have 11 trees"):
        grow_tree(two_phone_statistics(), PHONES, GROUPS, SINGLES, StateTyingConfig(num_leaves=5))


def test_silence_is_not_split_and_depends_on_no_context():
    statistics = two_phone_statistics()
    statistics.moments[:, 1] += statistics.events[:, 0] * 50.0  # everything depends on the left neighbour
    statistics.moments[:, 2] += 10_000
    tree, _ = grow_tree(statistics, PHONES, GROUPS, SINGLES, StateTyingConfig(num_leaves=100, min_occupancy=50))
    assert not tree.depends_on_context("SIL")
    assert tree.depends_on_context("x") and tree.depends_on_context("y")


def test_phones_of_a_group_share_their_trees_until_a_question_about_the_phone_parts_them():
    events = np.array([[0, phone, 0, state] for phone in (1, 2) for state in range(3)]
                      + [[0, 0, 0, state] for state in range(5)])
    rows = np.array([moments(100, 5.0 if (phone, state) == (2, 2) else 0.0) for _, phone, _, state in events])
    tree, _ = grow_tree(Statistics(events, rows), PHONES, [["SIL"], ["x", "y"]], SINGLES,
                        StateTyingConfig(num_leaves=9))
    assert tree.num_pdfs == 9
    assert [tree.pdf(("SIL", "x", "SIL"), state) for state in (0, 1)] == [
        tree.pdf(("SIL", "y", "SIL"), state) for state in (0, 1)]
    assert tree.roots["x", 2] is tree.roots["y", 2]
    assert tree.roots["x", 2].position == 1
    assert tree.pdf(("SIL", "x", "SIL"), 2) != tree.pdf(("SIL", "y", "SIL"), 2)


def test_of_all_trees_the_best_split_comes_first():
    statistics = two_phone_statistics()
    here = (statistics.events[:, 1] == 2) & (statistics.events[:, 3] == 0) & (statistics.events[:, 2] == 2)
    statistics.moments[here] = moments(50, 100.0)  # y before y: far stronger than x after y
    tree, _ = grow_tree(statistics, PHONES, GROUPS, SINGLES, StateTyingConfig(num_leaves=12))
    assert tree.roots["y", 0].position == 2
    assert not isinstance(tree.roots["x", 1], Split)


def test_statistics_are_those_of_the_frames_of_each_event():
    generator = np.random.default_rng(0)
    utterances = [(generator.normal(size=(n, 2)).astype(np.float32), generator.integers(0, 3, (n, 4)))
                  for n in (40, 1, 60)]
    found = accumulate(utterances, 3)
    features, events = (np.concatenate(arrays) for arrays in zip(*utterances, strict=True))
    assert len({tuple(event) for event in found.events.tolist()}) == len(found.events)
    assert found.moments[:, 0].sum() == 101
    for event, row in zip(found.events, found.moments, strict=True):
        x = features[(events == event).all(axis=1)].astype(np.float64)
        assert row == pytest.approx([len(x), *x.sum(axis=0), *(x * x).sum(axis=0)])


def test_the_log_likelihood_is_that_of_the_best_gaussian():
    x = np.array([1.0, 2.0, 4.0, 9.0])
    density = -0.5 * (np.log(2 * np.pi * x.var()) + (x - x.mean()) ** 2 / x.var())
    assert log_likelihood(np.array([4, x.sum(), (x * x).sum()])) == pytest.approx(density.sum())


def test_questions_are_clusters_of_phones_that_sound_alike():
    phones = ("SIL", "a", "b", "c", "d")
    events = np.array([[0, phone, 0, 1] for phone in range(5)])
    rows = np.array([moments(100, mean) for mean in (50.0, 0.0, 1.0, 10.0, 11.5)])
    questions = phone_questions(Statistics(events, rows), phones, [[phone] for phone in phones])
    assert questions[:5] == [frozenset([phone]) for phone in phones]
    assert questions[5:] == [frozenset("ab"), frozenset("cd"), frozenset("abcd")]


def test_a_tree_survives_its_file_and_can_be_drawn(tmp_path):
    tree, _ = grow_tree(two_phone_statistics(), PHONES, GROUPS, SINGLES, StateTyingConfig(num_leaves=12))
    write_tree(tmp_path / "tree.json", tree)
    read = read_tree(tmp_path / "tree.json")
    assert read == tree and read.fingerprint == tree.fingerprint
    assert monophone_tree(PHONES).fingerprint != tree.fingerprint
    assert '"left in": "y"' in (tmp_path / "tree.json").read_text()
    assert to_dot(tree, "x", 1).count("->") == 2


@pytest.mark.parametrize("content", ["", "{}", """{"phones": "SIL", "trees": [{"phones": "SIL", "tree": []}]}""",
                                     """{"phones": "SIL x", "trees": [{"phones": "SIL", "state": 0, "tree": 1}]}"""])
def test_a_damaged_tree_is_named(tmp_path, content):
    (tmp_path / "tree.json").write_text(content)
    with pytest.raises(ValueError, match=r"tree\.json: no .*run the stage that writes it again"):
        read_tree(tmp_path / "tree.json")


def test_questions_may_come_from_a_file(tmp_path):
    (tmp_path / "questions").write_text("x y\n\nSIL\n")
    assert read_questions(tmp_path / "questions", PHONES) == [frozenset("xy"), frozenset(["SIL"])]
    (tmp_path / "questions").write_text("x\nx z\n")
    with pytest.raises(ValueError, match="questions:2: z is not in the phone set"):
        read_questions(tmp_path / "questions", PHONES)


def test_monophones_have_a_pdf_id_for_every_state():
    tree = monophone_tree(PHONES)
    assert tree.num_pdfs == 5 + 3 + 3
    assert isinstance(tree, DecisionTree) and not any(map(tree.depends_on_context, PHONES))
    assert tree.pdf(("y", "x", "y"), 2) == 7


def test_a_negative_number_of_leaves_is_refused():
    with pytest.raises(ValueError, match="num_leaves may not be negative"):
        StateTyingConfig(num_leaves=-1)
