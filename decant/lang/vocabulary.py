"""The words of transcripts against those of the lexicon: which it lacks, and what becomes of them.

Train has to be covered, or its unknown words are taken for <UNK>, whose only phone learns from all of them (Kaldi's
oov.txt). Words of dev and test may be unknown: whatever is recognised in their place counts as wrong.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from decant.feat.data_dir import Utterance
from decant.lang.lexicon import SPOKEN_NOISE_PHONE, UNKNOWN_WORD, Lexicon, LexiconConfig, make_lexicon, some
from decant.text import shown

log = logging.getLogger(__name__)


def cover_words(lexicon: Lexicon, utterances: Iterable[Utterance], text: Path, config: LexiconConfig) -> Lexicon:
    """The lexicon that speaks every word of `utterances` (train's, from the file `text`): as it is, or with <UNK> where
    that is needed and `config.unknown_words` allows it.

    Raises ValueError naming the words that the lexicon lacks where it does not, and what `check_unknown` does.
    """
    missing: dict[str, str] = {}
    utterances = list(utterances)
    for utterance in utterances:
        for word in utterance.words:
            if word not in lexicon.pronunciations:
                missing.setdefault(word, utterance.id)
    if not missing:
        return lexicon
    if config.unknown_words == "refuse":
        named = some([f"{shown(word, lexicon.pronunciations if n < 5 else ())} (utterance {utterance})"
                      for n, (word, utterance) in enumerate(missing.items())])
        raise ValueError(f"{text}: words missing from the lexicon: {named}; add their pronunciations or remove the "
                         "utterances, or set lexicon.unknown_words to spoken_noise, which takes these words for "
                         f"{UNKNOWN_WORD}, or to g2p, which makes pronunciations for them")
    check_unknown(lexicon, utterances, text, config)
    log.info("%s: words that the lexicon lacks are taken for %s", text, UNKNOWN_WORD)
    if UNKNOWN_WORD in lexicon.pronunciations:
        return lexicon
    unknown = (UNKNOWN_WORD, (SPOKEN_NOISE_PHONE,))
    return make_lexicon([*lexicon.entries(), unknown], lexicon.probabilities and lexicon.probabilities | {unknown: 1.0})


def check_unknown(lexicon: Lexicon, utterances: Iterable[Utterance], text: Path, config: LexiconConfig) -> None:
    """Logs how many of the running words of `utterances` (from the file `text`) the lexicon lacks; ValueError if they
    are more than `config.max_unknown` allows, with the case that would mend it, if one would."""
    spoken = Counter(word for utterance in utterances for word in utterance.words)
    unknown = Counter({word: n for word, n in spoken.items() if word not in lexicon.pronunciations})
    if not unknown:
        return
    counts = (f"{unknown.total()} of {spoken.total()} words ({100 * unknown.total() / spoken.total():.1f}%), "
              f"{len(unknown)} different ones, are not in the lexicon")
    common = some([shown(word, lexicon.pronunciations) for word, _ in unknown.most_common(5)])
    if unknown.total() <= config.max_unknown * spoken.total():
        log.info("%s: %s, such as %s", text, counts, common)
        return
    hint = ""
    for case, change in (("upper", str.upper), ("lower", str.lower)):
        mended = sum(n for word, n in unknown.items() if change(word) in lexicon.pronunciations)
        if 2 * mended > unknown.total():
            hint = f"; in {case} case {mended} of them would be: write the transcripts and the lexicon in the same case"
    raise ValueError(f"{text}: {counts}, such as {common}, more than lexicon.max_unknown = {config.max_unknown:g} "
                     f"allows{hint or '; add their pronunciations to the lexicon, or raise it'}")


def known_words(words: Sequence[str], lexicon: Lexicon) -> list[str]:
    """The words of a sentence, those that the lexicon lacks as <UNK>, if it has that."""
    return [lexicon.spoken(word) or word for word in words]


def counted_known_words(sentences: Iterable[Sequence[str]], lexicon: Lexicon) -> Iterator[list[str]]:
    """The known words of sentences, one at a time; when all are through, the log says how many became <UNK>."""
    num_unknown = 0
    for words in sentences:
        known = known_words(words, lexicon)
        num_unknown += known.count(UNKNOWN_WORD)
        yield known
    log.info("language model: %d of its words are %s", num_unknown, UNKNOWN_WORD)
