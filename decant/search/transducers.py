"""What a decoding graph is composed of: G of a language model, L of a lexicon, H of the phones' HMMs.

G and L end on words, L begins with phones, H goes from pdf-ids + 1 to labels of phones in context. #0, on back-off
arcs, and the marks #1 ... pass through all of them, so that determinising keeps apart what sounds the same.
"""

import logging
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import kaldifst
import numpy as np

from decant.hmm.state_tying import Context
from decant.hmm.topology import TransitionModel
from decant.lang.language_model import read_arpa, write_arpa
from decant.lang.lexicon import BACKOFF, RESERVED_WORDS, SILENCE_PHONE, Entry, Lexicon
from decant.search.fst_arrays import ARC, from_arcs, to_fst
from decant.text import shown

log = logging.getLogger(__name__)

# A line of OpenFst's text format: source, target, input label, output label, cost.
Arc = tuple[int, int, int, int, float]


def write_grammar(arpa: Path, lexicon: Lexicon, words_txt: Path, out: Path) -> None:
    """G, with #0 on its back-off arcs. n-grams with a word that the lexicon lacks are left out.

    Raises ValueError if the ARPA file is damaged, empty or shares no word with the lexicon.
    """
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
    plain = out.with_suffix(".arpa")
    write_arpa(model, plain)  # kaldilm reads no gzip
    del model
    # In a process of its own, as kaldilm always writes to stderr, and kills its process at an error.
    made = subprocess.run(
        [sys.executable, "-m", "kaldilm", f"--disambig-symbol={BACKOFF}", f"--read-symbol-table={words_txt}",
         "--max-arpa-warnings=0", str(plain), str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )
    if made.returncode != 0:
        raise ValueError(f"{arpa}: kaldilm makes no transducer of it: {made.stderr.strip()[-500:]}")


def lexicon_transducer(
    entries: Iterable[Entry],
    costs: Iterable[float],
    words: Mapping[str, int],
    phones: Mapping[str, int],
    silence_prob: float,
    scratch: Path,
) -> kaldifst.StdVectorFst:
    """L, from phones to words, an optional silence at the start and after each word (make_lexicon_fst.py); `costs` of
    the entries are on their first phones. It goes through the file `scratch`."""
    start, between_words, silence, silence_end = range(4)
    ways_on = ((between_words, -math.log(1.0 - silence_prob)), (silence, -math.log(silence_prob)))
    head = [(start, (0, 0, cost, target)) for target, cost in ways_on]
    head += [(silence, (phones[SILENCE_PHONE], 0, 0.0, silence_end))]
    head += [(silence_end, (max(phones.values()), 0, 0.0, between_words))]

    entries = list(entries)
    length = np.array([len(spoken) for _, spoken in entries])
    phone = np.array([phones[name] for _, spoken in entries for name in spoken], np.int32)
    last = np.cumsum(length) - 1
    first = last - length + 1
    state = 4 + np.arange(len(phone)) - np.repeat(np.arange(len(entries)), length)  # after each phone but a last one
    source = np.append(between_words, state[:-1])
    source[first] = between_words
    label, cost, way = np.zeros_like(phone), np.zeros(len(phone)), np.ones(len(phone), np.int64)
    label[first] = [words[word] for word, _ in entries]  # the word's label goes on its first phone, as its cost does
    cost[first] = list(costs)
    way[last] = len(ways_on)

    rows = np.repeat(np.arange(len(phone)), way)  # the phone of each arc; a last one has two
    arcs = np.zeros(len(rows), ARC)
    arcs["input"], arcs["output"], arcs["target"], arcs["cost"] = phone[rows], label[rows], state[rows], cost[rows]
    for number, (target, more) in enumerate(ways_on):
        ends = np.cumsum(way)[last] - len(ways_on) + number
        arcs["target"][ends], arcs["cost"][ends] = target, cost[last] + more
    final = np.full(4 + len(phone) - len(entries), np.inf, np.float32)
    final[between_words] = 0.0
    fst = to_fst(from_arcs(start, final, np.append([state for state, _ in head], source[rows]),
                           np.append(np.array([arc for _, arc in head], ARC), arcs)), scratch)
    kaldifst.add_self_loops(fst, [phones[BACKOFF]], [words[BACKOFF]])
    kaldifst.arcsort(fst, "olabel")
    return fst


def hmm_transducer(contexts: Mapping[int, Context], marks: list[int],
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
    fst = kaldifst.compile("".join(" ".join(map(str, arc)) + "\n" for arc in arcs) + "0\n")
    kaldifst.arcsort(fst, "olabel")
    return fst
