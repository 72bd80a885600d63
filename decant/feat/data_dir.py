"""Kaldi data directories: reading them with every check, and writing them.

A data directory holds `wav.scp`, `text`, `utt2spk`, `spk2utt`, and optionally `utt2dur` and `segments`
(Kaldi's page "Data preparation"). A line is a key and a value; lines are sorted by key as bytes (the C locale).
The key is an utterance-id; in `spk2utt` a speaker-id; in `wav.scp` a recording-id where `segments` cuts
recordings into utterances. Two things differ from Kaldi: a relative audio path is relative to the data directory,
so that it can be moved together with its audio, and `wav.scp` may not hold shell commands.
"""

import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from decant.feat.audio import duration
from decant.files import atomic_path
from decant.settings import config_field

MAX_PROBLEMS = 10  # problems that one error spells out; the others it counts
# What each file says of an utterance, for the messages.
CONTENT = {"wav.scp": "audio", "segments": "segment", "text": "transcript", "utt2spk": "speaker",
           "spk2utt": "utterances", "utt2dur": "duration"}

Table = dict[str, tuple[int, str]]  # key -> (number of its line, the rest of the line)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """An utterance: who speaks, in which audio file, which words."""

    id: str
    speaker: str
    audio: Path
    words: tuple[str, ...]
    start: float | None = None  # seconds into `audio`; None: the whole file
    end: float | None = None  # seconds into `audio`
    speed: float = field(default=1.0, repr=False)  # how many times as fast as recorded it is heard


def at_speed(utterance: Utterance, speed: float) -> Utterance:
    """The utterance spoken so many times as fast, by a speaker of its own; named as Kaldi's
    perturb_data_dir_speed.sh does."""
    return replace(utterance, id=f"sp{speed:g}-{utterance.id}", speaker=f"sp{speed:g}-{utterance.speaker}", speed=speed)


def original_id(utterance_id: str) -> str:
    """The id of the utterance that `at_speed` made this one from; its own if it was not."""
    return re.sub(r"^sp[\d.]+-", "", utterance_id)


def read_data_dir(directory: Path, transcribed: bool = True) -> list[Utterance]:
    """The utterances of a data directory, sorted by id as bytes, after every check of its files.

    transcribed: false: there need be no `text`, and it is not looked at; the utterances have no words.
    Raises FileNotFoundError if there is no such directory, and one ValueError with a line
    `file:line: problem; remedy` for each of the first 10 problems of its files.
    """
    directory = Path(directory)
    remedy = "run stage 0 again" if transcribed else "make it"
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such data directory; {remedy}")
    problems: list[str] = []
    optional = [name for name in ("segments", "utt2dur") if (directory / name).exists()]
    listed_in = "text" if transcribed else "utt2spk"  # all other files are held against this one
    tables = {name: _read_table(directory / name, problems, remedy)
              for name in ("wav.scp", *["text"] * transcribed, "utt2spk", "spk2utt", *optional)}
    audio = _check_audio(directory, tables["wav.scp"], problems)
    times = {}
    if "segments" in tables:
        times = _check_segments(directory, tables["segments"], tables["wav.scp"], problems)
    _check_speakers(directory, tables["utt2spk"], tables["spk2utt"], problems)
    for utterance, (line, value) in tables.get("utt2dur", {}).items():
        if value and not 0 < _seconds(value) < math.inf:
            problems.append(f"{directory}/utt2dur:{line}: the duration of {utterance} is {value!r}, which is not "
                            f"a positive number of seconds; {remedy}")
    _check_same_utterances(directory, tables, listed_in, problems, remedy)
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise ValueError("\n".join(problems[:MAX_PROBLEMS] + [f"... and {more} more problems"] * (more > 0)))

    utterances = []
    for utterance, (_, words) in tables[listed_in].items():
        recording, start, end = times.get(utterance, (utterance, None, None))
        speaker = tables["utt2spk"][utterance][1]
        utterances.append(Utterance(utterance, speaker, audio[recording],
                                    tuple(words.split()) if transcribed else (), start, end))
    return utterances


def write_data_dir(directory: Path, utterances: Iterable[Utterance]) -> None:
    """Writes a data directory, with `utt2dur` from the audio files' headers, and reads it again to check it.

    Audio that lies in the data directory's parent is written with a relative path, so that the parent can be
    moved; other audio with an absolute one. A recording with segments takes the id of its first utterance.
    Raises what `read_data_dir` and `decant.feat.audio.duration` raise, and ValueError if there are no utterances, two
    have the same id, or only some have a start and an end.
    """
    directory = Path(directory)
    utterances = sorted(utterances, key=lambda utterance: utterance.id)
    if not utterances:
        raise ValueError(f"{directory}: there are no utterances to write")
    for first, second in pairwise(utterances):
        if first.id == second.id:
            raise ValueError(f"{directory}: two utterances have the id {first.id}; make them differ")
    if len({time is None for utterance in utterances for time in (utterance.start, utterance.end)}) > 1:
        raise ValueError(f"{directory}: give all utterances a start and an end, or none of them")
    cut = utterances[0].start is not None

    tables: dict[str, dict[str, object]] = {"wav.scp": {}, "utt2dur": {}} | ({"segments": {}} if cut else {})
    recordings: dict[Path, str] = {}
    utterances_of = defaultdict(list)
    for utterance in utterances:
        utterances_of[utterance.speaker].append(utterance.id)
        recording = recordings.setdefault(utterance.audio, utterance.id) if cut else utterance.id
        tables["wav.scp"][recording] = _movable(utterance.audio, directory)
        if cut:
            tables["segments"][utterance.id] = f"{recording} {utterance.start} {utterance.end}"
            tables["utt2dur"][utterance.id] = utterance.end - utterance.start
        else:
            tables["utt2dur"][utterance.id] = duration(utterance.audio)
    tables["text"] = {utterance.id: " ".join(utterance.words) for utterance in utterances}
    tables["utt2spk"] = {utterance.id: utterance.speaker for utterance in utterances}
    tables["spk2utt"] = {speaker: " ".join(ids) for speaker, ids in sorted(utterances_of.items())}
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with atomic_path(directory / name) as path:
            path.write_text("".join(f"{key} {value}\n" for key, value in table.items()), encoding="utf-8")
    read_data_dir(directory)


def check_disjoint_speakers(splits: Mapping[str, Iterable[Utterance]]) -> None:
    """Raises ValueError if any speaker occurs in two of the splits, given by name: train, dev, test."""
    splits_of = defaultdict(set)
    for name, utterances in splits.items():
        for utterance in utterances:
            splits_of[utterance.speaker].add(name)
    shared = [f"{speaker} ({', '.join(sorted(names))})"
              for speaker, names in sorted(splits_of.items()) if len(names) > 1]
    if shared:
        raise ValueError(f"speakers in more than one split: {', '.join(shared)}; results on known voices are too "
                         "good: leave each speaker in one split only")


@dataclass(frozen=True)
class UtterancesConfig:
    """How many utterances may be left out."""

    max_unusable: float = config_field(
        0.02, "Share of a split's utterances that may be unusable, and so left out, before a stage fails.",
        changes="nothing")


def check_unusable(split: str, unusable: Mapping[str, str], total: int, config: UtterancesConfig) -> None:
    """Logs each unusable utterance of a split with its reason; ValueError if they are too many of `total`."""
    for utterance, reason in unusable.items():
        log.warning("%s: utterance %s is left out: %s", split, utterance, reason)
    if len(unusable) > config.max_unusable * total:
        raise ValueError(f"{split}: {len(unusable)} of {total} utterances cannot be used, more than max_unusable = "
                         f"{config.max_unusable:g} allows; mend them, or raise it")


def _read_table(path: Path, problems: list[str], remedy: str) -> Table:
    """The lines of one file by key; what is wrong with them is added to `problems`."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        problems.append(f"{path}: no such file; {remedy}")
        return {}
    if not lines:
        problems.append(f"{path}: the file is empty; {remedy}")
    table: Table = {}
    previous = ""
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        try:
            key, value = [*line.decode().split(maxsplit=1), "", ""][:2]
        except UnicodeDecodeError as error:
            problems.append(f"{where}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8")
            continue
        if not key:
            problems.append(f"{where}: the line is blank; remove it")
            continue
        if not value:
            problems.append(f"{where}: {key} has no {CONTENT[path.name]}; complete the line or remove {key}")
        if key in table:
            problems.append(f"{where}: {key} is in line {table[key][0]} already; remove one of the two")
        elif key < previous:  # code points sort as their UTF-8 bytes do
            problems.append(f"{where}: {key} stands after {previous}; sort the file with LC_ALL=C sort")
        table.setdefault(key, (number, value.rstrip()))
        previous = key
    return table


def _check_audio(directory: Path, wav_scp: Table, problems: list[str]) -> dict[str, Path]:
    """The audio file of every recording, each looked up once."""
    audio = {}
    for recording, (line, value) in wav_scp.items():
        audio[recording] = directory / value
        if "|" in value:
            problems.append(f"{directory}/wav.scp:{line}: {value!r} is a shell command, which is never run; write "
                            "its output to an audio file and name that")
        elif value and not audio[recording].is_file():
            problems.append(f"{directory}/wav.scp:{line}: no audio file {audio[recording]}; restore it or remove "
                            f"{recording}")
    return audio


def _check_segments(
    directory: Path, segments: Table, wav_scp: Table, problems: list[str]
) -> dict[str, tuple[str, float, float]]:
    """(recording, start, end) of every utterance in `segments`."""
    times = {}
    for utterance, (line, value) in segments.items():
        where = f"{directory}/segments:{line}"
        recording, start, end, *rest = [*value.split(), "", "", ""]
        times[utterance] = recording, _seconds(start), _seconds(end)
        if len(rest) != 3 or not 0 <= times[utterance][1] < times[utterance][2] < math.inf:
            problems.append(f"{where}: expected a recording and 0 <= start < end in seconds, found {value!r}; "
                            "mend or remove the segment")
        elif wav_scp and recording not in wav_scp:
            problems.append(f"{where}: recording {recording} is not in wav.scp; add it or remove {utterance}")
    used = {recording for recording, _, _ in times.values()}
    problems += [f"{directory}/wav.scp:{line}: no segment is cut from recording {recording}; remove the line"
                 for recording, (line, _) in wav_scp.items() if used and recording not in used]
    return times


def _check_speakers(directory: Path, utt2spk: Table, spk2utt: Table, problems: list[str]) -> None:
    utterances_of = defaultdict(list)
    for utterance, (line, speaker) in utt2spk.items():
        utterances_of[speaker].append(utterance)
        if len(speaker.split()) > 1:
            problems.append(f"{directory}/utt2spk:{line}: {speaker!r} is not one speaker-id; take out the blanks")
    if utt2spk and spk2utt:
        for speaker in sorted(utterances_of.keys() | spk2utt.keys()):
            line, listed = spk2utt.get(speaker, (len(spk2utt), ""))
            if sorted(listed.split()) != sorted(utterances_of[speaker]):
                problems.append(f"{directory}/spk2utt:{line}: speaker {speaker} has the utterances "
                                f"{listed or 'none'} here, but {' '.join(utterances_of[speaker]) or 'none'} in "
                                "utt2spk; make spk2utt from utt2spk again")


def _check_same_utterances(directory: Path, tables: dict[str, Table], listed_in: str, problems: list[str],
                           remedy: str) -> None:
    """Every utterance must stand in each of the files that is there."""
    audio = "segments" if "segments" in tables else "wav.scp"
    for name in (audio, "utt2spk", "utt2dur"):
        for one, other in ((listed_in, name), (name, listed_in)):
            if tables.get(one) and tables.get(other):  # if not, the file as a whole has been reported
                problems += [f"{directory}/{one}:{line}: utterance {utterance} has no {CONTENT[other]} in {other}; "
                             f"{remedy} or remove the line"
                             for utterance, (line, _) in tables[one].items() if utterance not in tables[other]]


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _movable(audio: Path, directory: Path) -> str:
    audio, parent = os.path.abspath(audio), os.path.abspath(directory.parent)
    return os.path.relpath(audio, directory) if Path(audio).is_relative_to(parent) else audio
