import gzip
import itertools
import json
import logging
import math
from dataclasses import asdict

import kaldi_decoder
import kaldifst
import numpy as np
import pytest

from decant.hmm.state_tying import DecisionTree, Split, monophone_tree, num_states
from decant.hmm.topology import HmmConfig, TransitionModel
from decant.lang.lexicon import make_lexicon, phone_variants, position_dependent
from decant.search.decoding_graph import add_hmm_self_loops, build_graph, check_same_tree
from decant.search.fst_arrays import ARC, from_arcs, read_arrays, read_graph_arrays

SILENCE_PROB = 0.3
LEXICON = make_lexicon([("a", ("X",)), ("a", ("Y",)), ("b", ("Y", "X")), ("c", ("X",))])  # c sounds like a
TRANSITIONS = TransitionModel(monophone_tree(LEXICON.phones), HmmConfig(SILENCE_PROB, self_loop_scale=0.7))
TREE = TRANSITIONS.tree
# The first state of X asks for its left neighbour, the last of Y for its right.
TIED = TransitionModel(DecisionTree(TREE.phones, {
    **TREE.roots, ("X", 0): Split(0, frozenset("X"), yes=11, no=5),
    ("Y", 2): Split(2, frozenset(["SIL", "Y"]), yes=10, no=12)}), TRANSITIONS.config)
WORD_PROBS = {"a": 0.5, "b": 0.2, "c": 0.1}
END_PROB = 0.2
ROUNDING = 0.01  # minimising rounds the cost of each arc to 1/1024


def arpa(unigrams, bigrams=()):
    lines = ["\\data\\", f"ngram 1={len(unigrams)}", *([f"ngram 2={len(bigrams)}"] if bigrams else [])]
    lines += ["\n\\1-grams:", *unigrams]
    lines += ["\n\\2-grams:", *bigrams] if bigrams else []
    return "\n".join([*lines, "\n\\end\\", ""])


UNIGRAM = arpa(["-99 <s>", f"{math.log10(END_PROB)} </s>",
                *(f"{math.log10(prob)} {word}" for word, prob in WORD_PROBS.items())])


def build(directory, language_model=UNIGRAM, lexicon=LEXICON, transitions=TRANSITIONS):
    (directory / "lm.arpa").write_text(language_model)
    graph_dir = directory / "graph"
    facts = build_graph(lexicon, directory / "lm.arpa", transitions, graph_dir)
    return graph_dir, facts


def sentence_cost(graph_dir, sentence):
    """Cost of the graph's cheapest path that speaks a sentence, self-loops left out; inf if there is none."""
    ids = dict(line.split() for line in (graph_dir / "words.txt").read_text().splitlines())
    fst = kaldifst.StdVectorFst(kaldifst.StdConstFst.read(str(graph_dir / "HCLG.fst")))
    kaldifst.arcsort(fst, "olabel")
    acceptor = kaldifst.make_linear_acceptor([int(ids[word]) for word in sentence.split()])
    best = kaldifst.shortest_path(kaldifst.compose(fst, acceptor))
    if best.start < 0:
        return math.inf
    _, _, _, weight = kaldifst.get_linear_symbol_sequence(best)
    return weight.value


def contexts(phones):
    return zip(["SIL", *phones[:-1]], phones, [*phones[1:], "SIL"], strict=True)


def viterbi(phones, log_likelihoods, transitions):
    """Cost of the best path of frames through a row of phones."""
    phone_arcs = [transitions.phone_arcs(context) for context in contexts(phones)]
    self_loops = transitions.self_loop_log_prob
    alphas, entering = {}, 0.0  # log-probability of each state of the row; that of entering the next phone
    for t, frame in enumerate(log_likelihoods):
        new = {}
        entering = 0.0 if t == 0 else -math.inf
        for i, arcs in enumerate(phone_arcs):
            exit_state = max(target for _, target, _, _ in arcs)
            for state in range(1, exit_state):
                pdf = next(pdf for _, target, pdf, _ in arcs if target == state)
                ways = [alphas.get((i, state), -math.inf) + self_loops[pdf]]
                ways += [(entering if source == 0 else alphas.get((i, source), -math.inf)) + log_prob
                         for source, target, _, log_prob in arcs if target == state]
                new[i, state] = max(ways) + frame[pdf]
            entering = max(alphas.get((i, source), -math.inf) + log_prob
                           for source, target, _, log_prob in arcs if target == exit_state)
        alphas = new
    return -max(alphas[len(phones) - 1, source] + log_prob
                for source, target, _, log_prob in arcs if target == exit_state)


def best_sentence(log_likelihoods, transitions):
    """(cost, words) of the best sentence, by trying them all."""
    tried = []
    pronounced = [(word, phones) for word in WORD_PROBS for phones in LEXICON.pronunciations[word]]
    for num_words in range(len(log_likelihoods) // 3 + 1):
        for entries in itertools.product(pronounced, repeat=num_words):
            for silences in itertools.product([False, True], repeat=num_words + 1):
                phones = ["SIL"] * silences[0]
                for (_, pronunciation), silence in zip(entries, silences[1:], strict=True):
                    phones += [*pronunciation, *["SIL"] * silence]
                # every phone takes three frames or more
                if not phones or 3 * len(phones) > len(log_likelihoods):
                    continue
                cost = -math.log(END_PROB) - sum(math.log(WORD_PROBS[word]) for word, _ in entries)
                cost -= sum(math.log(SILENCE_PROB if silence else 1 - SILENCE_PROB) for silence in silences)
                tried.append((cost + viterbi(phones, log_likelihoods, transitions), [word for word, _ in entries]))
    return min(tried)


@pytest.mark.parametrize("transitions", [TRANSITIONS, TIED], ids=["monophones", "tied triphones"])
def test_the_best_path_costs_the_sum_of_its_parts(tmp_path, transitions):
    graph_dir, _ = build(tmp_path, transitions=transitions)
    fst = kaldifst.StdConstFst.read(str(graph_dir / "HCLG.fst"))
    symbols = [line.split()[0] for line in (graph_dir / "words.txt").read_text().splitlines()]
    rng = np.random.default_rng(0)
    heard = set()
    for phones in (["Y"], ["X"], ["Y", "X"], ["X", "X", "X"], ["SIL", "X"], ["Y", "SIL"]):
        log_likelihoods = rng.normal(0, 2, (9, transitions.num_pdfs)).astype(np.float32)
        pdfs = [pdf for context in contexts(phones) for pdf in transitions.pdfs(context)]
        log_likelihoods[np.arange(9), [pdfs[t * len(pdfs) // 9] for t in range(9)]] += 4.0
        cost, words = best_sentence(log_likelihoods, transitions)
        decoder = kaldi_decoder.FasterDecoder(fst, kaldi_decoder.FasterDecoderOptions(beam=1e6))
        decoder.decode(kaldi_decoder.DecodableCtc(log_likelihoods))
        _, path = decoder.get_best_path()
        _, _, labels, weight = kaldifst.get_linear_symbol_sequence(path)
        assert weight.value1 + weight.value2 == pytest.approx(cost, abs=ROUNDING)
        assert [symbols[label] for label in labels] == words
        heard.add(" ".join(words))
    assert heard >= {"a", "b", "a a a"}


def test_every_sentence_of_a_unigram_model_costs_its_words_silences_and_transitions(tmp_path):
    graph_dir, _ = build(tmp_path)
    leave_phone = -3 * 0.7 * math.log(0.25)  # three states, each left with probability 0.25
    num_phones = {"a": 1, "b": 2, "c": 1}
    for sentence in ["a", "b", "c", *map(" ".join, itertools.product("abc", repeat=2)), "b a b c"]:
        words = sentence.split()
        expected = -math.log(END_PROB) - sum(math.log(WORD_PROBS[word]) for word in words)
        expected -= (len(words) + 1) * math.log(1 - SILENCE_PROB)
        expected += sum(num_phones[word] for word in words) * leave_phone
        assert sentence_cost(graph_dir, sentence) == pytest.approx(expected, abs=ROUNDING)


def test_a_seen_bigram_has_its_own_cost_and_an_unseen_one_that_of_backing_off(tmp_path):
    unigrams = ["-99 <s> -0.1", "-0.4 </s>", "-0.5 a -0.2", "-0.6 b -0.3"]
    seen, _ = build(tmp_path, arpa(unigrams, ["-0.05 a b"]))
    leave = -3 * 0.7 * math.log(0.25)
    log10 = -0.1 - 0.6 - 0.3 - 0.5 - 0.2 - 0.4  # <s> backs off to b, b to a, a to </s>
    expected = -log10 * math.log(10) - 3 * math.log(1 - SILENCE_PROB) + 3 * leave
    assert sentence_cost(seen, "b a") == pytest.approx(expected, abs=ROUNDING)
    log10 = -0.1 - 0.5 - 0.05 - 0.3 - 0.4  # the bigram "a b" is seen
    expected = -log10 * math.log(10) - 3 * math.log(1 - SILENCE_PROB) + 3 * leave
    assert sentence_cost(seen, "a b") == pytest.approx(expected, abs=ROUNDING)


def test_a_sentence_costs_its_likeliest_pronunciations_where_the_lexicon_has_probabilities(tmp_path):
    entries = [("a", ("X",)), ("a", ("Y",)), ("b", ("Y", "X")), ("c", ("X",))]
    lexicon = make_lexicon(entries, dict(zip(entries, (0.25, 0.5, 0.8, 1.0), strict=True)))
    graph_dir, _ = build(tmp_path, lexicon=lexicon)
    (tmp_path / "plain").mkdir()
    plain, _ = build(tmp_path / "plain")
    for sentence, probability in (("a", 0.5), ("b", 0.8), ("c", 1.0), ("a b a", 0.5 * 0.8 * 0.5)):
        expected = sentence_cost(plain, sentence) - math.log(probability)
        assert sentence_cost(graph_dir, sentence) == pytest.approx(expected, abs=ROUNDING)


def test_words_with_white_space_of_unicode_keep_their_numbers(tmp_path):
    odd = ["A\u00a0B", "***", "C\u3000D", "E\x1fF"]
    lexicon = make_lexicon([(word, ("X",) * (n + 1)) for n, word in enumerate(odd)])
    graph_dir, _ = build(tmp_path, arpa(["-99 <s>", "-0.5 </s>", *(f"-0.7 {word}" for word in odd)]), lexicon,
                         TransitionModel(monophone_tree(lexicon.phones), HmmConfig()))
    fst, words, _ = read_graph_arrays(graph_dir, 0.0)
    assert words == ("<eps>", *sorted(odd), "#0", "<s>", "</s>")
    assert set(fst.arcs["output"]) == {0, 1, 2, 3, 4}


def test_input_labels_are_pdf_ids_plus_one_and_every_pdf_is_there(tmp_path):
    graph_dir, facts = build(tmp_path)
    arcs = read_arrays(graph_dir / "HCLG.fst").arcs
    assert set(arcs["input"]) - {0} == set(range(1, TRANSITIONS.num_pdfs + 1))
    assert facts.num_pdfs == TRANSITIONS.num_pdfs


def test_every_state_that_a_pdf_enters_repeats_that_pdf_and_no_other(tmp_path):
    fst = read_arrays(build(tmp_path)[0] / "HCLG.fst")
    loop = fst.sources == fst.arcs["target"]
    loops = {int(arc["target"]): (int(arc["input"]), float(arc["cost"])) for arc in fst.arcs[loop]}
    assert len(loops) == loop.sum()
    for arc in fst.arcs[~loop]:
        target, label = int(arc["target"]), int(arc["input"])
        if label:
            assert loops[target] == (label, pytest.approx(-TRANSITIONS.self_loop_log_prob[label - 1], abs=1e-6))
        else:
            assert target not in loops
    assert np.all(fst.arcs["output"][loop] == 0)


def test_a_state_that_two_labels_enter_is_split_and_keeps_what_leaves_it():
    # 0 -1-> 1, 0 -2-> 1, 1 -0-> 0: state 1 becomes two; state 0 is entered by epsilon alone and stays one.
    arcs = np.array([(1, 5, 0.5, 1), (2, 6, 0.25, 1), (0, 7, 0.125, 0)], ARC)
    fst = from_arcs(0, np.array([np.inf, 3.0], np.float32), np.array([0, 0, 1]), arcs)
    graph = add_hmm_self_loops(fst, np.array([-1.0, -2.0]))
    assert graph.start == 0
    assert graph.final.tolist() == [np.inf, 3.0, 3.0]
    assert sorted(zip(graph.sources.tolist(), graph.arcs.tolist(), strict=True)) == [
        (0, (1, 5, 0.5, 1)), (0, (2, 6, 0.25, 2)),
        (1, (0, 7, 0.125, 0)), (1, (1, 0, 1.0, 1)),
        (2, (0, 7, 0.125, 0)), (2, (2, 0, 2.0, 2)),
    ]


def test_words_that_the_lexicon_lacks_are_left_out_with_a_notice(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        graph_dir, _ = build(tmp_path, arpa(["-99 <s>", "-0.5 </s>", "-0.5 a", "-0.5 b", "-1 zebra"]))
    assert "left out the n-grams of 1 of 3 words, which the lexicon lacks: zebra" in caplog.text
    assert math.isfinite(sentence_cost(graph_dir, "a"))


def test_a_packed_language_model_gives_the_same_graph(tmp_path):
    graph_dir, _ = build(tmp_path)
    with gzip.open(tmp_path / "lm.arpa.gz", "wt") as file:
        file.write(UNIGRAM)
    build_graph(LEXICON, tmp_path / "lm.arpa.gz", TRANSITIONS, tmp_path / "again")
    assert (tmp_path / "again/HCLG.fst").read_bytes() == (graph_dir / "HCLG.fst").read_bytes()


def test_the_facts_are_written_beside_the_graph(tmp_path):
    graph_dir, facts = build(tmp_path)
    fst = read_arrays(graph_dir / "HCLG.fst")
    assert (facts.states, facts.arcs) == (len(fst.final), len(fst.arcs))
    assert json.loads((graph_dir / "graph.json").read_text()) == asdict(facts)
    names = {file.name for file in graph_dir.iterdir()}
    assert names == {"HCLG.fst", "graph.json", "timing.json", "phones.txt", "words.txt"}


def test_a_language_model_without_a_word_of_the_lexicon_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"lm\.arpa: none of its 1 words is in the lexicon, for instance A;"):
        build(tmp_path, arpa(["-99 <s>", "-0.3 </s>", "-0.3 A"]))
    with pytest.raises(ValueError, match=r"instance \u0430 \(U\+0430, which looks like a, U\+0061\);"):
        build(tmp_path, arpa(["-99 <s>", "-0.3 </s>", "-0.3 \u0430"]))


def test_an_empty_language_model_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"lm\.arpa"):
        build(tmp_path, arpa(["-99 <s>", "-0.3 </s>"]))
    with pytest.raises(ValueError, match=r"lm\.arpa"):
        build(tmp_path, "")


def test_a_phone_without_an_hmm_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="phones of the lexicon without an HMM: Z;"):
        build(tmp_path, lexicon=make_lexicon([("a", ("X", "Z"))]))


def test_a_graph_of_another_tree_is_refused(tmp_path):
    graph_dir, _ = build(tmp_path, transitions=TIED)
    check_same_tree(graph_dir, TIED.tree.fingerprint, tmp_path / "model")
    with pytest.raises(ValueError, match="built with another decision tree than the states of .*model"):
        check_same_tree(graph_dir, TREE.fingerprint, tmp_path / "model")


SPOKEN = [("A", ("AH",)), ("WAY", ("W", "EY")), ("AWAY", ("AH", "W", "EY"))]
SAID = arpa(["-99 <s>", "-0.5 </s>", "-0.6 A", "-0.7 AWAY", "-0.9 WAY"])


def shared_trees(phones, groups):
    """The states of each group's phones in one tree, which asks about neighbours alone."""
    roots, pdfs = {}, itertools.count()
    for group in groups:
        for state in range(num_states(group[0])):
            root = next(pdfs) if group[0] == "SIL" else Split(0, frozenset(["SIL"]), next(pdfs), next(pdfs))
            roots |= {(phone, state): root for phone in group}
    return TransitionModel(DecisionTree(tuple(phones), roots), HmmConfig(SILENCE_PROB))


def test_words_that_differ_in_the_positions_of_tied_phones_alone_are_told_apart(tmp_path):
    """A WAY and AWAY have the same states where the tree does not ask for positions."""
    lexicon = position_dependent(make_lexicon(SPOKEN))
    graph_dir, _ = build(tmp_path, SAID, lexicon, shared_trees(lexicon.phones, phone_variants(lexicon.phones, True)))
    leave_phone = -3 * 0.1 * math.log(0.25)
    for sentence, log10, num_phones in (("A WAY", -0.6 - 0.9, 3), ("AWAY", -0.7, 3), ("AWAY A", -0.7 - 0.6, 4)):
        expected = -(log10 - 0.5) * math.log(10) + num_phones * leave_phone
        expected -= (len(sentence.split()) + 1) * math.log(1 - SILENCE_PROB)
        assert sentence_cost(graph_dir, sentence) == pytest.approx(expected, abs=ROUNDING)


def test_words_that_differ_in_the_stress_of_phones_of_one_tree_are_told_apart(tmp_path):
    lexicon = make_lexicon([("A", ("AH0",)), ("UH", ("AH1",)), ("WAY", ("W", "EY1")), ("AWAY", ("AH1", "W", "EY0"))])
    groups = [["SIL"], ["AH0", "AH1"], ["W"], ["EY0", "EY1"]]
    graph_dir, _ = build(tmp_path, SAID.replace("1=5", "1=6").replace("-0.9 WAY", "-0.8 UH\n-0.9 WAY"), lexicon,
                         shared_trees(lexicon.phones, groups))
    costs = [sentence_cost(graph_dir, sentence) for sentence in ("A", "UH", "A WAY", "AWAY")]
    one_word = -2 * math.log(1 - SILENCE_PROB) - 3 * 0.1 * math.log(0.25) + 0.5 * math.log(10)
    assert costs[:2] == pytest.approx([one_word + 0.6 * math.log(10), one_word + 0.8 * math.log(10)], abs=ROUNDING)
    assert all(map(math.isfinite, costs))


def test_marks_are_given_by_positions_where_these_are_enough(tmp_path):
    """WAY begins WAYS, but no words say what is left of it."""
    lexicon = position_dependent(make_lexicon([("WAY", ("W", "EY")), ("WAYS", ("W", "EY", "Z"))]))
    graph_dir, _ = build(tmp_path, arpa(["-99 <s>", "-0.5 </s>", "-0.6 WAY", "-0.6 WAYS"]), lexicon,
                         shared_trees(lexicon.phones, phone_variants(lexicon.phones, True)))
    assert [line.split()[0] for line in (graph_dir / "phones.txt").read_text().splitlines()[-2:]] == ["#0", "#1"]
