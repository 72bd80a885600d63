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

import ctypes
import json
import logging
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import kaldifst
import numpy as np

from decant.files import atomic_path
from decant.hmm.confusable import confusable_phones
from decant.hmm.state_tying import Context
from decant.hmm.topology import TransitionModel
from decant.lang.lexicon import SILENCE_PHONE, Entry, Lexicon
from decant.lang.symbols import disambiguated, phone_symbols, word_symbols, write_symbol_table
from decant.search.fst_arrays import ARC, FstArrays, from_arcs, read_arrays, to_fst, write_arrays
from decant.search.transducers import hmm_transducer, lexicon_transducer, write_grammar

log = logging.getLogger(__name__)


STATES_AT_A_TIME = 2**20  # as many get their arcs at a time
MAX_GROWTH = 20  # times as many states as before determinising; the graphs of recipes become smaller


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
    write_symbol_table(word_symbols(lexicon), out_dir / "words.txt")
    with TemporaryDirectory(dir=out_dir, prefix=".") as folder:
        scratch = Path(folder)
        heard_as = _heard_as(lexicon, transitions, scratch)
        write_grammar(arpa, lexicon, out_dir / "words.txt", scratch / "G.fst")
        phones = _compose(lexicon, heard_as, transitions, scratch)
        write_symbol_table(phones, out_dir / "phones.txt")
        graph = add_hmm_self_loops(read_arrays(scratch / "HCLG.fst"), transitions.self_loop_log_prob)
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
    one, and the start has it) becomes as many states, each with a loop, if its label is a pdf's, and all the arcs that
    leave the state. self_loop_log_prob: [S]; pdf-id p has label p + 1.
    """
    num_labels = len(self_loop_log_prob) + 1
    entries = fst.arcs["target"].astype(np.int64) * num_labels + fst.arcs["input"]
    start = fst.start * num_labels
    pairs = np.unique(np.append(entries, start))  # the new states: an old state and a label that enters it
    targets = np.searchsorted(pairs, entries).astype(np.int32)
    del entries
    new_start = int(np.searchsorted(pairs, start))
    old_states, labels = np.divmod(pairs, num_labels)
    del pairs

    num_copied = np.diff(fst.offsets)[old_states]
    offsets = np.append(0, np.cumsum(num_copied + (labels > 0)))
    arcs = np.zeros(offsets[-1], ARC)
    emitting = np.flatnonzero(labels)
    loops = offsets[emitting]  # a state's loop is its first arc
    arcs["input"][loops], arcs["target"][loops] = labels[emitting], emitting
    arcs["cost"][loops] = -self_loop_log_prob[labels[emitting] - 1]
    for first in range(0, len(old_states), STATES_AT_A_TIME):
        some = slice(first, first + STATES_AT_A_TIME)
        within = np.arange(num_copied[some].sum()) - np.repeat(np.cumsum(num_copied[some]) - num_copied[some],
                                                               num_copied[some])
        copied = np.repeat(fst.offsets[old_states[some]], num_copied[some]) + within
        places = np.repeat(offsets[:-1][some] + (labels[some] > 0), num_copied[some]) + within
        arcs[places] = fst.arcs[copied]
        arcs["target"][places] = targets[copied]
    return FstArrays(new_start, fst.final[old_states], offsets, arcs)


def _heard_as(lexicon: Lexicon, transitions: TransitionModel, scratch: Path) -> dict[str, str] | None:
    """By what marks are given (decant.lang.symbols.disambiguated): None, by the phones themselves, wherever that keeps
    apart all that can be said; else by the phones that the tree can tell apart, which takes more marks.

    The tree may tell the positions of phones apart by their neighbours alone. So what can be said is tried out, on a
    loop of all words in place of a language model.
    """
    heard_as = confusable_phones(transitions.tree)
    if all(phone == other for phone, other in heard_as.items()):
        return None
    loop = np.zeros(len(lexicon.pronunciations), ARC)
    loop["input"] = loop["output"] = np.arange(len(loop)) + 1
    grammar = from_arcs(0, np.zeros(1, np.float32), np.zeros(len(loop), np.int64), loop)
    _write(to_fst(grammar, scratch / "L.fst"), scratch / "G.fst")
    try:
        _compose(lexicon, None, transitions, scratch)
    except RuntimeError:  # kaldifst's "FST was not functional"
        log.info("The tree does not tell all positions or variants of phones apart: marks keep apart the words that "
                 "sound alike without them")
        return heard_as
    return None


def _compose(lexicon: Lexicon, heard_as: dict[str, str] | None, transitions: TransitionModel,
             scratch: Path) -> dict[str, int]:
    """Writes HCLG.fst, without self-loops, of G.fst; returns the phones' numbers, marks included."""
    entries, num_marks = disambiguated(lexicon, heard_as)
    phones = phone_symbols(lexicon, num_marks + 1)  # one more mark, for silence
    _words_in_phones(lexicon, entries, phones, transitions, scratch)
    _release()
    contexts, marks = _phones_in_context(phones, transitions, scratch)
    _release()
    _contexts_in_states(contexts, marks, transitions, scratch)
    _release()
    return phones


def _words_in_phones(lexicon: Lexicon, entries: list[Entry], phones: dict[str, int], transitions: TransitionModel,
                     scratch: Path) -> None:
    """Writes LG.fst, from phones to words. entries: the lexicon's, marked."""
    words = word_symbols(lexicon)
    costs = [0.0 - log_prob for word in lexicon.pronunciations for log_prob in lexicon.log_probs(word)]
    lg = kaldifst.compose(lexicon_transducer(entries, costs, words, phones, transitions.config.silence_prob,
                                             scratch / "L.fst"),
                          kaldifst.StdVectorFst.read(str(scratch / "G.fst")))
    _determinize(lg)
    kaldifst.minimize_encoded(lg)
    kaldifst.arcsort(lg, "ilabel")
    _write(lg, scratch / "LG.fst")


def _phones_in_context(phones: dict[str, int], transitions: TransitionModel,
                       scratch: Path) -> tuple[dict[int, Context], list[int]]:
    """Writes CLG.fst, from phones in context to words; returns the context that each of its input labels stands for,
    and its input labels of marks.

    One label stands for all contexts in which a phone has the same pdf-ids, the first of them. Without tied states, CLG
    is LG.
    """
    marks = [number for phone, number in phones.items() if phone.startswith("#")]
    spoken = [phone for phone, number in phones.items() if number and number not in marks]
    lg = kaldifst.StdVectorFst.read(str(scratch / "LG.fst"))
    if not any(transitions.tree.depends_on_context(phone) for phone in spoken):
        _write(lg, scratch / "CLG.fst")
        return {phones[phone]: (SILENCE_PHONE, phone, SILENCE_PHONE) for phone in spoken}, marks
    names = {number: phone for phone, number in phones.items()} | {0: SILENCE_PHONE}  # 0: beyond the utterance's ends
    clg, windows = kaldifst.compose_context(marks, 3, 1, lg)
    del lg
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
    _write_const(clg, scratch / "CLG.fst")
    del clg
    clg = _relabelled(scratch / "CLG.fst", same)
    _determinize(clg)
    kaldifst.minimize_encoded(clg)
    kaldifst.arcsort(clg, "ilabel")
    _write(clg, scratch / "CLG.fst")
    return contexts, clg_marks


def _contexts_in_states(contexts: dict[int, Context], marks: list[int], transitions: TransitionModel,
                        scratch: Path) -> None:
    """Writes HCLG.fst, from pdf-ids + 1 to words, without self-loops and marks."""
    hclg = kaldifst.compose(hmm_transducer(contexts, marks, transitions),
                            kaldifst.StdVectorFst.read(str(scratch / "CLG.fst")))
    _determinize(hclg)
    _write_const(hclg, scratch / "HCLG.fst")
    del hclg
    labels = np.arange(transitions.num_pdfs + 1 + len(marks))
    labels[transitions.num_pdfs + 1:] = 0
    hclg = _relabelled(scratch / "HCLG.fst", labels)
    kaldifst.minimize_encoded(hclg)
    _write_const(hclg, scratch / "HCLG.fst")


def _determinize(fst: kaldifst.StdVectorFst) -> None:
    """Raises RuntimeError for what cannot be determinized, or grows as if it could not."""
    if kaldifst.determinize_star(fst, max_states=MAX_GROWTH * (fst.num_states + 1000), use_log=True):
        raise RuntimeError("determinisation stopped before its end")


def _relabelled(path: Path, labels: np.ndarray) -> kaldifst.StdVectorFst:
    """The transducer of a const file, which it leaves changed, with new input labels: labels[the old one]."""
    fst = read_arrays(path)
    fst.arcs["input"] = labels[fst.arcs["input"]]
    return to_fst(fst, path)


def _write(fst: kaldifst.StdFst, path: Path) -> None:
    if not fst.write(str(path)):
        raise OSError(f"{path}: cannot be written; is the disk full?")


def _write_const(fst: kaldifst.StdVectorFst, path: Path) -> None:
    _write(kaldifst.StdConstFst(fst), path)


def _release() -> None:
    """Gives memory that is free back to the system, which glibc's malloc does of its own accord at its end alone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
