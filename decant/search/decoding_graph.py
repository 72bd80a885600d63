"""The decoding graph HCLG: what may be said, from the words of a language model down to HMM states.

Kaldi's construction (utils/mkgraph.sh; Mohri, Pereira, Riley 2008): G accepts the language model's sentences,
L turns phones into words, C turns phones in context into phones, H turns pdf-ids into phones in context, and each
composition is determinised and minimised. C is left out where no phone's states depend on its context.

Input labels are pdf-id + 1, so that 0 is epsilon; output labels are the numbers of words.txt; weights are
costs, negative natural logarithms at scale 1, which minimising rounds to 1/1024. Determinising moves them to
the front as it goes. Pushing them further, as Kaldi's fstpushspecial does, changed neither the errors nor the
speed of the search at beams from 10 to 20 (5000 words, 30,000 bigrams), so it is left out.

The letters: N states, A arcs, S pdf-ids.
"""

import json
import logging
import math
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import kaldifst
import numpy as np

from decant.files import atomic_path
from decant.hmm.state_tying import Context
from decant.hmm.topology import TransitionModel
from decant.lang.language_model import read_arpa, write_arpa
from decant.lang.lexicon import BACKOFF, RESERVED_WORDS, SILENCE_PHONE, Lexicon
from decant.lang.symbols import disambiguated, phone_symbols, word_symbols, write_symbol_table
from decant.search.fst_arrays import ARC, FstArrays, from_arcs, to_arrays, to_fst, write_arrays
from decant.text import shown

log = logging.getLogger(__name__)

# A line of OpenFst's text format: source, target, input label, output label, cost.
Arc = tuple[int, int, int, int, float]


@dataclass(frozen=True)
class GraphFacts:
    """What graph.json holds."""

    num_pdfs: int
    tree: str  # the fingerprint of the decision tree that it was built with
    states: int
    arcs: int


def build_graph(lexicon: Lexicon, arpa: Path, transitions: TransitionModel, out_dir: Path) -> GraphFacts:
    """Write HCLG.fst (OpenFst, const), words.txt, phones.txt and graph.json into `out_dir`; timing.json has the seconds
    that it took and the most memory of the process up to then.

    Words of the language model that the lexicon lacks are left out, with a notice. Raises ValueError if the
    ARPA file is damaged, empty or shares no word with the lexicon, and if a phone of the lexicon has no HMM.
    """
    started = time.monotonic()
    if missing := [phone for phone in lexicon.phones if phone not in transitions.phones]:
        raise ValueError(f"phones of the lexicon without an HMM: {' '.join(missing)}; "
                         "train the HMM on this lexicon (stage 3)")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    entries, num_marks = disambiguated(lexicon)
    words, phones = word_symbols(lexicon), phone_symbols(lexicon, num_marks + 1)  # one more mark, for silence
    marks = [number for phone, number in phones.items() if phone.startswith("#")]
    write_symbol_table(words, out_dir / "words.txt")
    write_symbol_table(phones, out_dir / "phones.txt")
    with TemporaryDirectory(dir=out_dir, prefix=".") as scratch:
        grammar = _grammar(arpa, lexicon, out_dir / "words.txt", Path(scratch))
        costs = [0.0 - log_prob for word in lexicon.pronunciations for log_prob in lexicon.log_probs(word)]
        lg = kaldifst.compose(
            _lexicon_transducer(entries, costs, words, phones, transitions.config.silence_prob), grammar)
        _determinize(lg)
        kaldifst.minimize_encoded(lg)
        kaldifst.arcsort(lg, "ilabel")
        clg, contexts, marks = _in_context(lg, lexicon.phones, phones, marks, transitions, Path(scratch, "clg.fst"))
        hclg = kaldifst.compose(_hmm_transducer(contexts, marks, transitions), clg)
        _determinize(hclg)
        hclg = _without_marks(hclg, transitions.num_pdfs, Path(scratch, "hclg.fst"))
        kaldifst.minimize_encoded(hclg)
        graph = add_hmm_self_loops(to_arrays(hclg, Path(scratch, "hclg.fst")), transitions.self_loop_log_prob)
    write_arrays(out_dir / "HCLG.fst", graph)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = GraphFacts(transitions.num_pdfs, transitions.tree.fingerprint, len(graph.final), len(graph.arcs))
    cost = {"seconds": round(time.monotonic() - started, 2), "peak_memory_mb": round(peak_kib / 1024, 1)}
    for name, content in (("graph.json", asdict(facts)), ("timing.json", cost)):
        with atomic_path(out_dir / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
    log.info("%s: %d states, %d arcs; %.1f s, at most %.0f MB", out_dir / "HCLG.fst", facts.states, facts.arcs,
             *cost.values())
    return facts


def check_same_tree(graph_dir: Path, tree: str, model: Path) -> None:
    """Raises ValueError unless the graph was built with the tree (its fingerprint) of the model's states."""
    if json.loads((graph_dir / "graph.json").read_text())["tree"] != tree:
        raise ValueError(f"{graph_dir}: built with another decision tree than the states of {model}; build the graph "
                         "of that model's alignment (stage 5)")


def add_hmm_self_loops(fst: FstArrays, self_loop_log_prob: np.ndarray) -> FstArrays:
    """The graph in which every pdf may be repeated: a self-loop wherever an arc with an input label arrives.

    A loop may only repeat the label that came last. So a state that arcs of several labels enter (epsilon is
    one, and the start has it) becomes as many states, each with all the arcs that leave it.
    self_loop_log_prob: [S]; pdf-id p has label p + 1.
    """
    num_labels = len(self_loop_log_prob) + 1
    entries = fst.arcs["target"].astype(np.int64) * num_labels + fst.arcs["input"]
    start = fst.start * num_labels
    pairs = np.unique(np.append(entries, start))  # the new states: an old state and a label that enters it
    old_states, labels = np.divmod(pairs, num_labels)

    num_copied = np.diff(fst.offsets)[old_states]
    first_copy = np.cumsum(num_copied) - num_copied
    copied = np.arange(num_copied.sum()) + np.repeat(fst.offsets[old_states] - first_copy, num_copied)
    arcs = fst.arcs[copied]
    arcs["target"] = np.searchsorted(pairs, entries[copied])

    emitting = np.flatnonzero(labels)
    loops = np.zeros(len(emitting), ARC)
    loops["input"], loops["target"] = labels[emitting], emitting
    loops["cost"] = -self_loop_log_prob[labels[emitting] - 1]
    sources = np.concatenate([emitting, np.repeat(np.arange(len(pairs)), num_copied)])
    new_start = int(np.searchsorted(pairs, start))
    return from_arcs(new_start, fst.final[old_states], sources, np.concatenate([loops, arcs]))


def _grammar(arpa: Path, lexicon: Lexicon, words_txt: Path, scratch: Path) -> kaldifst.StdVectorFst:
    """G, with #0 on its back-off arcs. n-grams with a word that the lexicon lacks are left out."""
    model = read_arpa(arpa)
    vocabulary = [word for word in model.words if word not in RESERVED_WORDS]
    unknown = [word for word in vocabulary if word not in lexicon.pronunciations]
    some = " ".join(shown(word, lexicon.pronunciations) for word in unknown[:5])
    if len(unknown) == len(vocabulary):
        raise ValueError(f"{arpa}: none of its {len(unknown)} words is in the lexicon, for instance {some}; make both "
                         "from the same words, in the same case")
    if unknown:
        log.warning("%s: left out the n-grams of %d of %d words, which the lexicon lacks: %s%s", arpa,
                    len(unknown), len(vocabulary), some, " ..." if len(unknown) > 5 else "")
    write_arpa(model, scratch / "lm.arpa")  # kaldilm reads no gzip
    # In a process of its own, as kaldilm always writes to stderr, and kills its process at an error.
    made = subprocess.run(
        [sys.executable, "-m", "kaldilm", f"--disambig-symbol={BACKOFF}", f"--read-symbol-table={words_txt}",
         "--max-arpa-warnings=0", str(scratch / "lm.arpa"), str(scratch / "G.fst")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )
    if made.returncode != 0:
        raise ValueError(f"{arpa}: kaldilm makes no transducer of it: {made.stderr.strip()[-500:]}")
    return kaldifst.StdVectorFst.read(str(scratch / "G.fst"))


def _lexicon_transducer(
    entries: Iterable[tuple[str, tuple[str, ...]]],
    costs: Iterable[float],
    words: dict[str, int],
    phones: dict[str, int],
    silence_prob: float,
) -> kaldifst.StdVectorFst:
    """L, from phones to words, an optional silence at the start and after each word (make_lexicon_fst.py); `costs` of
    the entries are on their first phones."""
    start, between_words, silence, silence_end = range(4)
    silence_mark = max(phones.values())
    ways_on = ((between_words, -math.log(1.0 - silence_prob)), (silence, -math.log(silence_prob)))
    arcs: list[Arc] = [(start, target, 0, 0, cost) for target, cost in ways_on]
    arcs += [(silence, silence_end, phones[SILENCE_PHONE], 0, 0.0)]
    arcs += [(silence_end, between_words, silence_mark, 0, 0.0)]
    num_states = 4
    for (word, pronunciation), cost in zip(entries, costs, strict=True):
        state, label = between_words, words[word]  # the word's label goes on its first phone
        for phone in pronunciation[:-1]:
            arcs.append((state, num_states, phones[phone], label, cost))
            state, label, cost, num_states = num_states, 0, 0.0, num_states + 1
        arcs += [(state, target, phones[pronunciation[-1]], label, cost + way) for target, way in ways_on]
    fst = _compile(arcs, final=between_words)
    kaldifst.add_self_loops(fst, [phones[BACKOFF]], [words[BACKOFF]])
    kaldifst.arcsort(fst, "olabel")
    return fst


def _in_context(
    lg: kaldifst.StdVectorFst, hmm_phones: Iterable[str], phones: dict[str, int], marks: list[int],
    transitions: TransitionModel, scratch: Path,
) -> tuple[kaldifst.StdVectorFst, dict[int, Context], list[int]]:
    """CLG, the context that each of its input labels stands for, and its input labels of marks.

    One label stands for all contexts in which a phone has the same pdf-ids, the first of them. Without tied states, LG.
    """
    if not any(transitions.tree.depends_on_context(phone) for phone in hmm_phones):
        return lg, {phones[phone]: (SILENCE_PHONE, phone, SILENCE_PHONE) for phone in hmm_phones}, marks
    names = {number: phone for phone, number in phones.items()} | {0: SILENCE_PHONE}  # 0: beyond the utterance's ends
    clg, windows = kaldifst.compose_context(marks, 3, 1, lg)
    contexts: dict[int, Context] = {}
    clg_marks, same = [], np.arange(len(windows))
    of_pdfs: dict[tuple, int] = {}
    for label, window in enumerate(windows):
        if len(window) == 3:
            context = (names[window[0]], names[window[1]], names[window[2]])
            same[label] = of_pdfs.setdefault((context[1] == SILENCE_PHONE, *transitions.pdfs(context)), label)
            if same[label] == label:
                contexts[label] = context
        elif window:  # a mark, or the mark that stands at the start in place of a left neighbour
            clg_marks.append(label)
    arrays = to_arrays(clg, scratch)
    arcs = arrays.arcs.copy()
    arcs["input"] = same[arcs["input"]]
    clg = to_fst(replace(arrays, arcs=arcs), scratch)
    _determinize(clg)
    kaldifst.minimize_encoded(clg)
    kaldifst.arcsort(clg, "ilabel")
    return clg, contexts, clg_marks


def _hmm_transducer(contexts: dict[int, Context], marks: list[int],
                    transitions: TransitionModel) -> kaldifst.StdVectorFst:
    """H, from pdf-ids + 1 to the labels of contexts, without self-loops. The marks' input labels follow those of the
    pdfs."""
    arcs: list[Arc] = []
    num_states = 1  # state 0 is every phone's entry and exit
    for label, context in contexts.items():
        hmm = transitions.phone_arcs(context)
        exit_state = max(target for _, target, _, _ in hmm)
        states = [0, *range(num_states, num_states + exit_state - 1), 0]
        num_states += exit_state - 1
        arcs += [(states[source], states[target], pdf + 1, label if source == 0 else 0, -log_prob)
                 for source, target, pdf, log_prob in hmm]
    arcs += [(0, 0, transitions.num_pdfs + 1 + i, number, 0.0) for i, number in enumerate(marks)]
    fst = _compile(arcs, final=0)
    kaldifst.arcsort(fst, "olabel")
    return fst


def _compile(arcs: Iterable[Arc], final: int) -> kaldifst.StdVectorFst:
    """The transducer that starts where its first arc does."""
    return kaldifst.compile("".join(" ".join(map(str, arc)) + "\n" for arc in arcs) + f"{final}\n")


def _determinize(fst: kaldifst.StdVectorFst) -> None:
    if kaldifst.determinize_star(fst, use_log=True):
        raise RuntimeError("determinisation stopped before its end")


def _without_marks(fst: kaldifst.StdVectorFst, num_pdfs: int, scratch: Path) -> kaldifst.StdVectorFst:
    """The transducer with input labels beyond those of the pdfs made epsilon."""
    arrays = to_arrays(fst, scratch)
    arcs = arrays.arcs.copy()
    arcs["input"][arcs["input"] > num_pdfs] = 0
    return to_fst(replace(arrays, arcs=arcs), scratch)
