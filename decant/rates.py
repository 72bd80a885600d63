"""Rates that `run.sh --plan` reckons with, each with where it was measured.

One core is one of an AMD EPYC (Zen 4) with bfloat16 instructions, unless said otherwise. No GPU has been measured: what
is said of one is counted, or assumed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """A number, its unit, and what it was measured on."""

    value: float
    unit: str
    source: str


_LIBRISPEECH = "2 hours of LibriSpeech, one contended core, commit 0043f3c"
_GRAPH = "33,787 words, a trigram of 1.18 million n-grams, 1500 pdf-ids, commit 0043f3c"
_TRAINING = "tests/benchmarks/training_speed.py, docs/performance.md"

RATES = {
    "fbank": Rate(7.4, "core-seconds an hour of speech", _LIBRISPEECH),
    "alignment of monophones": Rate(6.7, "core-seconds an hour of speech and round, graphs among them", _LIBRISPEECH),
    "alignment of triphones": Rate(16.2, "core-seconds an hour of speech and round, graphs among them", _LIBRISPEECH),
    "re-estimation": Rate(0.3, "core-seconds an hour of speech and round", _LIBRISPEECH),
    "fmllr": Rate(2.7, "core-seconds an hour of speech and estimate", _LIBRISPEECH),
    "labels": Rate(53.0, "core-seconds an hour of speech and speed", "recipes/an4, three speeds, two cores"),
    "memory of a shard": Rate(1e9, "bytes a process", "decant/hmm/shards.py: an hour of features, and libraries"),
    "n-gram estimation": Rate(14e-6, "core-seconds a word of text", "990,000 words, order 3, commit 0043f3c"),
    "n-gram memory": Rate(1200.0, "bytes a word of text", "990,000 words, order 3, commit 0043f3c"),
    "n-gram reading": Rate(6.4e-6, "core-seconds an n-gram", "ARPA files, commit 0043f3c"),
    "n-grams": Rate(1.2, "n-grams a word of text", "train-clean-100's transcripts, order 3"),
    "words": Rate(9840.0, "words an hour of speech", "train-clean-100's transcripts, 990,000 words"),
    "utterance": Rate(12.3, "seconds", "LibriSpeech, all of train"),
    "graph": Rate(354e-6, "core-seconds an n-gram", _GRAPH),
    "graph memory": Rate(5100.0, "bytes an n-gram", _GRAPH),
    "graph disk": Rate(400.0, "bytes an n-gram", _GRAPH),
    "search": Rate(0.06, "core-seconds a second of speech", f"0.05 to 0.07 with {_GRAPH}"),
    "training, bfloat16, wide": Rate(170e9, "operations a core-second", f"{_TRAINING}: 8 layers of 2560, two cores"),
    "training, bfloat16": Rate(107e9, "operations a core-second", "recipes/an4, stage 8: 4 layers of 512, two cores"),
    "training, float32, wide": Rate(60e9, "operations a core-second", f"{_TRAINING}: 8 layers of 2560, two cores"),
    "training, float32": Rate(60e9, "operations a core-second", f"{_TRAINING}: 4 layers of 512, one core"),
    "training, GPU": Rate(540e12, "operations a second", "counted for an H100, docs/performance.md; not measured"),
    "step, GPU": Rate(1e-3, "seconds a minibatch at least", "assumed for launching its kernels; not measured"),
}


def rate(name: str) -> float:
    return RATES[name].value
