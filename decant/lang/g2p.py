"""Pronunciations for words that a lexicon lacks: grapheme-to-phoneme conversion, trained on that lexicon.

Phonetisaurus (Novak, Minematsu and Hirose 2016): letters and phones aligned by EM, an 8-gram of the pairs, the best
path. Its programs come with the package phonetisaurus (the extra `g2p`); the 8-gram is ours.
"""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from decant.files import atomic_path
from decant.lang.language_model import estimate_ngram, write_arpa
from decant.lang.lexicon import RESERVED_WORDS, UNKNOWN_WORD, Lexicon, Pronunciation, make_lexicon, some
from decant.text import read_fields

log = logging.getLogger(__name__)

ORDER = 8  # of the n-gram of pairs of letters and phones, phonetisaurus-train's
SPELLED = re.compile(r"[^\s_|{}<>\[\]()]+")  # its programs' marks, and brackets, which no spoken word has


def is_spelled(word: str) -> bool:
    """Whether a word can be pronounced by its letters: <UNK>, [NOISE], or 3 cannot."""
    return SPELLED.fullmatch(word) is not None and any(letter.isalpha() for letter in word)


def pronounced_by_g2p(lexicon: Lexicon, words: Iterable[str]) -> dict[str, Pronunciation]:
    """The most probable pronunciation of each word, by what the lexicon's words teach; words that are not spelled, or
    with a letter that no word of the lexicon has, are left out.

    Minutes for a lexicon of 100,000 words, then milliseconds a word. Raises ValueError where phonetisaurus is not
    installed or fails.
    """
    letters = {letter for word in lexicon.pronunciations if is_spelled(word) for letter in word}
    words = sorted({word for word in words if is_spelled(word) and letters.issuperset(word)})
    if not words:
        return {}
    names = {phone: f"p{number}" for number, phone in enumerate(lexicon.phones)}  # without its programs' marks
    phones = {name: phone for phone, name in names.items()}
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        lines = [f"{word}\t{' '.join(names[phone] for phone in pronunciation)}\n"
                 for word, pronunciation in lexicon.entries() if is_spelled(word)]
        (scratch / "lexicon").write_text("".join(lines), encoding="utf-8")
        (scratch / "words").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        _run(scratch, "phonetisaurus-align", "--input=lexicon", "--ofile=pairs", "--seq1_del=false", "--seq2_del=true",
             "--seq1_max=2", "--seq2_max=2", "--grow=false")
        pairs = [line for _, line in read_fields(scratch / "pairs")]
        write_arpa(estimate_ngram(pairs, ORDER, set().union(*pairs)), scratch / "lm")
        _run(scratch, "phonetisaurus-arpa2wfst", "--lm=lm", "--ofile=model")
        output = _run(scratch, "phonetisaurus-g2pfst", "--model=model", "--wordlist=words", "--nbest=1")
    found = {}
    for line in output.splitlines():
        word, *_, spoken = line.split("\t")  # and a score between them
        if names_spoken := spoken.split():
            found[word] = tuple(phones[name] for name in names_spoken)
    return found


def _run(folder: Path, program: str, *options: str) -> str:
    """Runs one of the package's programs in a folder; what it writes. Raises ValueError."""
    try:
        import phonetisaurus  # here: an optional extra
    except ImportError:
        raise ValueError("lexicon.unknown_words = \"g2p\" needs the package phonetisaurus; pip install phonetisaurus, "
                         "or set it to spoken_noise or refuse") from None
    env = phonetisaurus.guess_environment()
    path = shutil.which(program, path=env["PATH"])
    if path is None:
        raise ValueError(f"phonetisaurus has no program {program} for this processor; set lexicon.unknown_words to "
                         "spoken_noise or refuse")
    done = subprocess.run([path, *options], cwd=folder, env=os.environ | env, capture_output=True, text=True,
                          encoding="utf-8", check=False)
    if done.returncode:
        raise ValueError(f"{program} failed with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def with_g2p(lexicon: Lexicon, words: Iterable[str]) -> tuple[Lexicon, dict[str, Pronunciation]]:
    """The lexicon with pronunciations for those of `words` that it lacks, as far as they can be made, and these alone.
    """
    missing = sorted(set(words) - lexicon.pronunciations.keys() - RESERVED_WORDS - {UNKNOWN_WORD})
    made = pronounced_by_g2p(lexicon, missing)
    log.info("G2P has pronounced %d of %d words that the lexicon of %d lacks%s", len(made), len(missing),
             len(lexicon.pronunciations), f", such as {some(list(made))}" if made else "")
    if left := [word for word in missing if word not in made]:
        log.warning("G2P cannot pronounce %d words: %s", len(left), some(left))
    if not made:
        return lexicon, made
    probabilities = lexicon.probabilities and lexicon.probabilities | dict.fromkeys(made.items(), 1.0)
    return make_lexicon([*lexicon.entries(), *made.items()], probabilities), made


def write_g2p(made: dict[str, Pronunciation], path: Path) -> None:
    """Writes the words whose pronunciations were made, with these: a line each, as in a lexicon."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{word} {' '.join(phones)}\n" for word, phones in sorted(made.items())),
                             encoding="utf-8")


def read_g2p(path: Path) -> frozenset[str]:
    """The words of such a file."""
    return frozenset(word for _, (word, *_) in read_fields(path))
