from decant.hmm.confusable import confusable_phones
from decant.hmm.state_tying import DecisionTree, Split, monophone_tree


def tree(**roots):
    """The tree of phones of which every state has the root of its name, silence a pdf-id of its own."""
    silence = {("SIL", state): 90 + state for state in range(5)}
    return DecisionTree(("SIL", *roots), silence | {(phone, state): root for phone, root in roots.items()
                                                    for state in range(3)})


def test_phones_with_states_of_their_own_stand_for_themselves():
    assert confusable_phones(monophone_tree(["SIL", "A", "B"])) == {"SIL": "SIL", "A": "A", "B": "B"}


def test_phones_of_one_tree_that_asks_about_neighbours_alone_are_confused():
    root = Split(0, frozenset("A"), 0, 1)
    assert confusable_phones(tree(A=root, B=root, C=2)) == {"SIL": "SIL", "A": "A", "B": "A", "C": "C"}


def test_phones_that_a_question_about_the_phone_itself_parts_are_not_confused():
    root = Split(1, frozenset("A"), Split(2, frozenset("C"), 0, 1), 2)
    assert confusable_phones(tree(A=root, B=root, C=3)) == {"SIL": "SIL", "A": "A", "B": "B", "C": "C"}


def test_a_question_about_the_phone_that_only_some_neighbours_come_to_does_not_part():
    root = Split(0, frozenset("C"), Split(1, frozenset("A"), 0, 1), 2)
    assert confusable_phones(tree(A=root, B=root, C=3))["B"] == "A"


def test_phones_that_differ_in_one_state_always_are_not_confused():
    shared = tree(A=0, B=0)
    assert confusable_phones(DecisionTree(shared.phones, shared.roots | {("B", 1): 1}))["B"] == "B"


def test_phones_that_are_each_confused_with_a_third_are_one():
    assert confusable_phones(tree(A=Split(0, frozenset("A"), 0, 1), B=Split(0, frozenset("A"), 2, 3),
                                  C=Split(0, frozenset("A"), 1, 2))) == {"SIL": "SIL", "A": "A", "B": "A", "C": "A"}
