"""Shards: whole speakers' utterances, about an hour, the unit in which training and alignment go through the data.

Which utterances are in a shard follows from the data alone, and sums over shards are added up in the shards' order: how
many are at work at a time changes no bit of a result. A shard is a feature folder with transcripts, like those that
Kaldi's split_data.sh makes: feats.scp and cmvn.scp (which name the archives of the folder that was split), utt2spk,
fbank.toml and text. A pass over the shards is a folder too: task.json says what is done with each shard, and what comes
of it is written to files named after the shard, the sums last. So a shard whose sums are there is passed over, and
`python -m decant.hmm.shard_passes PASS SHARD` does one alone.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from decant.feat.archive import read_num_rows, read_scp
from decant.feat.fbank import read_speakers
from decant.feat.front_end import Filterbanks, read_filterbanks
from decant.text import byte_lines, fields

SHARD_FRAMES = 360_000  # an hour: 58 MB of 40 filterbank bins, and what a process holds beside them, some 400 MB
MIN_SHARDS = 8  # of a small corpus, so that several processes have work

Words = Mapping[str, Sequence[str]]


def subset(num_frames: Mapping[str, int], count: int, shortest: bool) -> list[str]:
    """`count` of the utterances, sorted: the shortest ones, or evenly spaced by name; all of them for 0 or too many
    (Kaldi's subset_data_dir.sh)."""
    names = sorted(num_frames)
    if not 0 < count < len(names):
        return names
    if shortest:
        return sorted(sorted(names, key=lambda name: (num_frames[name], name))[:count])
    return [names[i * len(names) // count] for i in range(count)]


def by_shard(num_frames: Mapping[str, int], speaker_of: Mapping[str, str],
             shard_frames: int = SHARD_FRAMES) -> list[list[str]]:
    """The utterances of each shard, sorted: speaker after speaker, a new shard where `shard_frames` are full, or an
    eighth of all frames if that is less."""
    of_speaker: dict[str, list[str]] = {}
    for utterance in sorted(num_frames):
        of_speaker.setdefault(speaker_of[utterance], []).append(utterance)
    sizes = [sum(num_frames[utterance] for utterance in mine) for _, mine in sorted(of_speaker.items())]
    full = max(1, min(shard_frames, -(-sum(sizes) // MIN_SHARDS)))
    numbers = np.cumsum([0, *sizes[:-1]]) // full
    return [sorted(utterance for _, (_, mine) in group for utterance in mine)
            for _, group in groupby(zip(numbers, sorted(of_speaker.items()), strict=True), key=lambda item: item[0])]


def write_shards(fbank: Path, words: Words, out: Path, count: int = 0, shortest: bool = False) -> list[Path]:
    """Splits a feature folder, or `count` of its utterances (`subset`), and returns the shards' folders, OUT/0001 ...;
    what is there already is kept. words: of every utterance that has them."""
    if not out.exists():
        places, means = read_scp(fbank / "feats.scp"), read_scp(fbank / "cmvn.scp")
        speaker_of = read_speakers(fbank)
        num_frames = read_num_rows(places)
        chosen = subset(num_frames, count, shortest)
        temporary = out.with_name(f".{out.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        for number, utterances in enumerate(by_shard({u: num_frames[u] for u in chosen}, speaker_of), start=1):
            shard = temporary / f"{number:04d}"
            shard.mkdir(parents=True)
            shutil.copyfile(fbank / "fbank.toml", shard / "fbank.toml")
            _write(shard / "feats.scp", ((u, os.path.relpath(places[u], out / shard.name)) for u in utterances))
            _write(shard / "cmvn.scp", ((speaker, os.path.relpath(means[speaker], out / shard.name))
                                        for speaker in sorted({speaker_of[u] for u in utterances})))
            _write(shard / "utt2spk", ((u, speaker_of[u]) for u in utterances))
            _write(shard / "text", ((u, " ".join(words[u])) for u in utterances if u in words))
        temporary.rename(out)
    return sorted(out.iterdir())


def read_shard(shard: Path) -> tuple[Filterbanks, Words]:
    """A shard's filterbanks, and its transcripts."""
    words = {key: spoken for key, *spoken in (fields(line.decode()) for line in byte_lines(shard / "text"))}
    return read_filterbanks(shard), words


def _write(path: Path, lines: Iterable[tuple[str, str]]) -> None:
    path.write_text("".join(f"{key} {value}\n" for key, value in lines), encoding="utf-8")
