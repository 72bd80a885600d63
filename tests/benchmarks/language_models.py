"""Estimating, reading and applying n-gram language models, beside MITLM in the same run.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/language_models.py [--text FILE] [--words 1100000] [--ngrams 5000000]

estimates a trigram of a text, drawn at random or given, in a process of its own, and with MITLM's estimate-ngram, which
the package phonetisaurus brings; compares perplexities on a tenth of the text that was held out; then reads an ARPA
file of so many n-grams made up at random, says bytes and microseconds an n-gram, and what 146 million would need.
Times are processor seconds of the user's; memory is the largest resident size of the process.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from decant.lang.language_model import NgramModel, estimate_ngram, read_arpa, sentence_log10_probs, write_arpa
from decant.lang.ngram_model import Section, perplexity
from decant.text import read_lines

LARGE = 146_000_000  # LibriSpeech's 4-gram


def sentences_of(path: Path) -> list[list[str]]:
    return [words for _, words in read_lines(path)]


def random_text(num_words: int) -> list[str]:
    """Sentences of words whose frequencies fall off as Zipf's do, each drawn anew or as one of 20 heirs of the last."""
    random, vocabulary = np.random.default_rng(0), 20_000
    drawn = np.minimum(random.zipf(1.2, num_words), vocabulary) - 1
    heirs, choices, fresh = random.integers(vocabulary, size=(vocabulary, 20)), random.integers(20, size=num_words), \
        random.random(num_words) < 0.4
    words = drawn.tolist()
    for place in np.flatnonzero(~fresh)[1:].tolist():
        words[place] = int(heirs[words[place - 1], choices[place]] % (1 + words[place - 1] % 5000))
    ends = np.flatnonzero(random.random(num_words) < 1 / 13).tolist()
    return [" ".join(f"W{word}" for word in words[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def measured(*command: object, env: dict[str, str] | None = None) -> tuple[float, float]:
    """User's seconds and largest resident size, in MB, of a program."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed with {process.returncode}")
    return usage.ru_utime, usage.ru_maxrss / 1000


def estimate(text: Path, vocabulary: Path, arpa: Path) -> None:
    """What a process of its own does for our share of the comparison."""
    words = [word for _, line in read_lines(vocabulary) for word in line]
    write_arpa(estimate_ngram((line for _, line in read_lines(text)), 3, words), arpa)


def compare_estimates(folder: Path, lines: list[str]) -> None:
    held_out, train = lines[::10], [line for number, line in enumerate(lines) if number % 10]
    vocabulary = sorted({word for line in train for word in line.split()})
    known = set(vocabulary)
    held_out = [line for line in held_out if known.issuperset(line.split())]
    for name, content in (("train", train), ("test", held_out), ("vocabulary", vocabulary), ("empty", ["a"])):
        (folder / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    test, ours = sentences_of(folder / "test"), [sys.executable, __file__, "--estimate"]
    start, idle = min(measured(*ours, folder / "empty", folder / "empty", folder / "none.arpa") for _ in range(3))
    taken, size = min(measured(*ours, folder / "train", folder / "vocabulary", folder / "ours.arpa") for _ in range(3))
    value, _ = perplexity(read_arpa(folder / "ours.arpa"), test)
    num_words = sum(len(line.split()) for line in train)
    print(f"trigram of {num_words:,} words, ours: {taken - start:.2f} s and {start:.2f} s to start, {size:.0f} MB "
          f"({idle:.0f} MB of them before it begins), perplexity {value:.3f}")
    try:
        import phonetisaurus
    except ImportError:
        print("MITLM is not installed (pip install phonetisaurus)")
        return
    env = phonetisaurus.guess_environment()
    program = next(path for part in env["PATH"].split(":") if (path := Path(part, "estimate-ngram")).exists())
    seconds, size = min(measured(
        program, "-order", 3, "-smoothing", "ModKN", "-vocab", folder / "vocabulary", "-text", folder / "train",
        "-write-lm", folder / "mitlm.arpa", env=env) for _ in range(3))
    theirs, _ = perplexity(read_arpa(folder / "mitlm.arpa"), test)
    print(f"MITLM: {seconds:.2f} s, {size:.0f} MB, perplexity {theirs:.3f}; ours takes {(taken - start) / seconds:.2f} "
          f"times as long; perplexities differ by {abs(value / theirs - 1):.5%}")


def random_model(num_ngrams: int) -> NgramModel:
    """A trigram of 200,000 words, a third of its other n-grams bigrams."""
    random, words = np.random.default_rng(0), sorted(["<s>", "</s>", *(f"WORD{number}" for number in range(200_000))])
    sections: list[Section] = []
    for size in (len(words), num_ngrams // 3, num_ngrams - num_ngrams // 3 - len(words)):
        histories = len(sections[-1].keys) if sections else 1
        keys = np.unique(random.integers(histories * len(words), size=size)) if sections else np.arange(size)
        backoffs = random.normal(size=len(keys) if len(sections) < 2 else 0)
        sections.append(Section(keys, -5 * random.random(len(keys)), backoffs))
    return NgramModel.from_arrays(words, sections)


def measure_reading(folder: Path, num_ngrams: int) -> None:
    model = random_model(num_ngrams)
    write_arpa(model, folder / "large.arpa")
    started = time.process_time()
    read = read_arpa(folder / "large.arpa", np.float32)
    taken, size = time.process_time() - started, sum(section.nbytes for section in read.sections)
    each = size / read.num_ngrams
    print(f"{read.num_ngrams:,} n-grams read: {1e6 * taken / read.num_ngrams:.2f} us and {each:.1f} bytes each; "
          f"{LARGE:,}: {LARGE * taken / read.num_ngrams / 60:.1f} minutes and {LARGE * each / 1e9:.1f} GB (computed)")
    random = np.random.default_rng(1)
    texts = [[model.words[word] for word in random.integers(3, len(model.words), size=20)] for _ in range(20_000)]
    started = time.process_time()
    sentence_log10_probs(read, texts)
    print(f"scored: {1e6 * (time.process_time() - started) / (21 * len(texts)):.2f} us a word")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--words", type=int, default=1_100_000)
    parser.add_argument("--ngrams", type=int, default=5_000_000)
    parser.add_argument("--estimate", type=Path, nargs=3, metavar=("TEXT", "VOCABULARY", "ARPA"))
    given = parser.parse_args()
    if given.estimate:
        return estimate(*given.estimate)
    with TemporaryDirectory() as folder:
        compare_estimates(Path(folder), given.text.read_text().splitlines() if given.text else
                          random_text(given.words))
        measure_reading(Path(folder), given.ngrams)


if __name__ == "__main__":
    main()
