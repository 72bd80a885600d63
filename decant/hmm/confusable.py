"""Phones between which a decision tree may not tell: sharing trees, they may have the same pdf-ids in every state."""

from collections.abc import Iterator

from decant.hmm.state_tying import DecisionTree, Split, num_states


def confusable_phones(tree: DecisionTree) -> dict[str, str]:
    """The phone that stands for each phone: the first of all those that the tree confuses with it.

    Two phones are confused if, of each of their states, some pdf-id is possible for both, in whatever contexts; and two
    that are confused with a third. Variants of a phone share their trees (decant.lang.lexicon.phone_variants: AH_B and
    AH_S), and are confused unless the questions about the phone itself part all of their pdf-ids. Where no phones share
    a pdf-id, each stands for itself.
    """
    classes: list[dict[str, list[set[int]]]] = []  # the possible pdf-ids of each state of each phone in a class
    for phone in tree.phones:
        pdfs = [set(_possible_pdfs(tree.roots[phone, state], phone)) for state in range(num_states(phone))]
        joined = {phone: pdfs}
        apart = []
        for others in classes:
            if any(_confused(pdfs, its_pdfs) for its_pdfs in others.values()):
                joined = others | joined
            else:
                apart.append(others)
        classes = [*apart, joined]
    return {phone: min(members, key=tree.phones.index) for members in classes for phone in members}


def _confused(pdfs: list[set[int]], others: list[set[int]]) -> bool:
    return len(pdfs) == len(others) and not any(a.isdisjoint(b) for a, b in zip(pdfs, others, strict=True))


def _possible_pdfs(node: Split | int, phone: str) -> Iterator[int]:
    """The leaves that a phone comes to, whatever its neighbours."""
    if not isinstance(node, Split):
        yield node
    elif node.position == 1:
        yield from _possible_pdfs(node.yes if phone in node.phones else node.no, phone)
    else:
        yield from _possible_pdfs(node.yes, phone)
        yield from _possible_pdfs(node.no, phone)
