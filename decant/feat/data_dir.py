"""Kaldi data directories: reading them with every check, and writing them.

A data directory holds `wav.scp`, `text`, `utt2spk`, and optionally `spk2utt`, `utt2dur` and `segments` (Kaldi's page
"Data preparation"). A line is a key and a value; lines are sorted by key as bytes (the C locale). The key is an
utterance-id; in `spk2utt` a speaker-id; in `wav.scp` a recording-id where `segments` cuts recordings into utterances.
Two things differ from Kaldi: a relative audio path is relative to the data directory, so that it can be moved together
with its audio, and commands in `wav.scp` are never run. Of a `sph2pipe` pipe the SPHERE file itself is read;
`x.ark:123` is a WAV file in one of Kaldi's archives, from that byte on.
"""

import functools
import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from decant.feat.audio import duration
from decant.files import atomic_path
from decant.settings import config_field
from decant.text import byte_lines, fields, is_field, shown

TO_THE_END = -1  # a segment's end in place of the recording's (Kaldi's extract-segments)
MAX_PROBLEMS = 10  # problems that one error spells out; the others it counts
# What each file says of an utterance, for the messages.
CONTENT = {"wav.scp": "audio", "segments": "segment", "text": "transcript", "utt2spk": "speaker",
           "spk2utt": "utterances", "utt2dur": "duration"}

# sph2pipe -f wav [-p] [-c CHANNEL, from 1] FILE |, with nothing in it that a shell would change.
SPH2PIPE = re.compile(r"(?:\S*/)?sph2pipe +-f +wav(?: +-p)?(?: +-c +([12]))?(?: +-p)? "
                      r"+(?!-)([^\s'\"\\$`|&;<>(){}*?~#]+) *\|")
ARCHIVED = re.compile(r"(.+):(\d+)")

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
    end: float | None = None  # seconds into `audio`; None: to its end
    speed: float = field(default=1.0, repr=False)  # how many times as fast as recorded it is heard
    channel: int | None = None  # of `audio`, from 0; None: its only one, or the setting fbank.channel
    offset: int | None = None  # byte of `audio`, a Kaldi archive, where a WAV file begins; None: it is audio itself


def at_speed(utterance: Utterance, speed: float) -> Utterance:
    """The utterance spoken so many times as fast, by a speaker of its own; named as Kaldi's
    perturb_data_dir_speed.sh does."""
    return replace(utterance, id=f"sp{speed:g}-{utterance.id}", speaker=f"sp{speed:g}-{utterance.speaker}", speed=speed)


def original_id(utterance_id: str) -> str:
    """The id of the utterance that `at_speed` made this one from; its own if it was not."""
    return re.sub(r"^sp[\d.]+-", "", utterance_id)


def with_copies(utterances: Sequence[Utterance], speeds: Iterable[float], where: Path) -> list[Utterance]:
    """The utterances and their copies at these speeds. Raises ValueError, naming `where`, if a copy's id is there."""
    copies = [at_speed(utterance, speed) for speed in speeds for utterance in utterances]
    if both := sorted({utterance.id for utterance in utterances} & {copy.id for copy in copies}):
        raise ValueError(f"{where}: frames.speeds would make {both[0]}, which is there already, as are {len(both)} in "
                         "all; leave these speeds to one of the two")
    return [*utterances, *copies]


def read_data_dir(directory: Path, transcribed: bool = True, audio: bool = True) -> list[Utterance]:
    """The utterances of a data directory, sorted by id as bytes, after every check of its files.

    transcribed: false: there need be no `text`, and it is not looked at; the utterances have no words. audio: false:
    the audio files need not be there, for stages that do not read them.
    Raises FileNotFoundError if there is no such directory, and one ValueError with a line
    `file:line: problem; remedy` for each of the first 10 problems of its files.
    """
    directory = Path(directory)
    remedy = "run stage 0 again" if transcribed else "make it"
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such data directory; {remedy}")
    problems: list[str] = []
    optional = [name for name in ("spk2utt", "segments", "utt2dur") if (directory / name).exists()]
    listed_in = "text" if transcribed else "utt2spk"  # all other files are held against this one
    tables = {name: _read_table(directory / name, problems, remedy)
              for name in ("wav.scp", *["text"] * transcribed, "utt2spk", *optional)}
    recordings = _check_audio(directory, tables["wav.scp"], audio, problems)
    times = {}
    if "segments" in tables:
        times = _check_segments(directory, tables["segments"], tables["wav.scp"], problems)
    _check_speakers(directory, tables["utt2spk"], tables.get("spk2utt"), problems)
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
        path, channel, offset = recordings[recording]
        utterances.append(Utterance(utterance, speaker, path, tuple(fields(words)) if transcribed else (), start, end,
                                    channel=channel, offset=offset))
    if "spk2utt" not in tables:
        _notice(f"{directory}: no spk2utt; utt2spk says as much")
    if times and (unused := tables["wav.scp"].keys() - {recording for recording, _, _ in times.values()}):
        _notice(f"{directory}/wav.scp: no segment is cut from {len(unused)} of {len(recordings)} recordings, such as "
                f"{min(unused)}; they are not used")
    return utterances


def read_words(directory: Path) -> dict[str, tuple[str, ...]]:
    """What is said in every utterance of a data directory; its audio is not looked for."""
    return {utterance.id: utterance.words for utterance in read_data_dir(directory, audio=False)}


@functools.cache  # so that a process logs each once, however often it reads the directory
def _notice(message: str) -> None:
    log.info("%s", message)


def write_data_dir(directory: Path, utterances: Iterable[Utterance], movable: Path | None = None) -> None:
    """Writes a data directory, with `utt2dur` from the audio files' headers, and reads it again to check it.

    Audio that lies in the folder `movable` (by default the data directory's parent) is written with a relative path,
    so that the folder can be moved as a whole; other audio with an absolute one. A recording with segments takes the
    id of its first utterance. Raises what `read_data_dir` raises, and ValueError if there are no utterances, two have
    the same id, only some have a start, one has an end alone, one would not be read back the same, or audio files
    cannot be used, each of which the log names.
    """
    directory = Path(directory)
    movable = directory.parent if movable is None else movable
    utterances = sorted(utterances, key=lambda utterance: utterance.id)
    if not utterances:
        raise ValueError(f"{directory}: there are no utterances to write")
    for first, second in pairwise(utterances):
        if first.id == second.id:
            raise ValueError(f"{directory}: two utterances have the id {first.id}; make them differ")
    cut = utterances[0].start is not None
    for utterance in utterances:
        if (utterance.start is not None) != cut or (utterance.end is not None and not cut):
            raise ValueError(f"{directory}: give all utterances a start, with or without an end, or none of them one")
        if odd := [text for text in (utterance.id, utterance.speaker, *utterance.words) if not is_field(text)]:
            raise ValueError(f"{directory}: {odd[0]!r} of utterance {utterance.id!r} would not be read back as one "
                             "word; take white space and byte order marks out of it")
        if re.search(r"\n|\s$", str(utterance.audio), re.ASCII):
            raise ValueError(f"{directory}: {str(utterance.audio)!r} would not be read back as one path; rename it")

    tables: dict[str, dict[str, object]] = {name: {} for name in ("wav.scp", "utt2dur", *["segments"] * cut)}
    recordings: dict[tuple, str] = {}
    seconds = _durations(directory, utterances)
    utterances_of = defaultdict(list)
    for utterance in utterances:
        utterances_of[utterance.speaker].append(utterance.id)
        source = utterance.audio, utterance.channel, utterance.offset
        recording = recordings.setdefault(source, utterance.id) if cut else utterance.id
        tables["wav.scp"][recording] = _wav_scp_entry(utterance, directory, movable)
        end = seconds[utterance.audio, utterance.offset] if utterance.end is None else utterance.end
        tables["utt2dur"][utterance.id] = end - (utterance.start or 0.0)
        if cut:
            tables["segments"][utterance.id] = (f"{recording} {utterance.start} "
                                                f"{TO_THE_END if utterance.end is None else utterance.end}")
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
        lines = list(byte_lines(path))
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
            line.decode()
        except UnicodeDecodeError as error:
            problems.append(f"{where}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8")
            continue
        key, value = (part.rstrip().decode() for part in [*line.split(maxsplit=1), b"", b""][:2])
        if not key:
            problems.append(f"{where}: the line is blank; remove it")
            continue
        if not value:
            problems.append(f"{where}: {key} has no {CONTENT[path.name]}; complete the line or remove {key}")
        if key in table:
            problems.append(f"{where}: {key} is in line {table[key][0]} already; remove one of the two")
        elif key < previous:  # code points sort as their UTF-8 bytes do
            problems.append(f"{where}: {key} stands after {previous}; sort the file with LC_ALL=C sort")
        table.setdefault(key, (number, value))
        previous = key
    return table


def _check_audio(directory: Path, wav_scp: Table, look: bool,
                 problems: list[str]) -> dict[str, tuple[Path, int | None, int | None]]:
    """(audio file, channel, offset) of every recording, as in Utterance; look: whether the files are there, too."""
    audio = {}
    for recording, (line, value) in wav_scp.items():
        path, channel, offset = value, None, None
        if piped := SPH2PIPE.fullmatch(value):
            channel, path = int(piped[1]) - 1 if piped[1] else None, piped[2]
        elif archived := ARCHIVED.fullmatch(value):
            path, offset = archived[1], int(archived[2])
        audio[recording] = directory / path, channel, offset
        if "|" in path:
            problems.append(f"{directory}/wav.scp:{line}: {value!r} is a shell command, which is never run (only "
                            "`sph2pipe -f wav [-p] [-c CHANNEL] FILE |` is understood); write its output to an audio "
                            "file and name that")
        elif look and value and not audio[recording][0].is_file():
            problems.append(f"{directory}/wav.scp:{line}: no audio file {directory / path}; restore it or remove "
                            f"{recording}")
    return audio


def _durations(directory: Path, utterances: Iterable[Utterance]) -> dict[tuple[Path, int | None], float]:
    """Seconds of each (audio file, offset); ValueError if some cannot be used, after the log has named all of them."""
    seconds, problems = {}, []
    for source in dict.fromkeys((utterance.audio, utterance.offset) for utterance in utterances):
        try:
            seconds[source] = duration(*source)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    for problem in problems:
        log.warning("%s", problem)
    if problems:
        raise ValueError(f"{directory}: {len(problems)} of {len(seconds) + len(problems)} audio files cannot be used; "
                         f"the log names each, the first is {problems[0]}")
    return seconds


def _check_segments(
    directory: Path, segments: Table, wav_scp: Table, problems: list[str]
) -> dict[str, tuple[str, float, float | None]]:
    """(recording, start, end) of every utterance in `segments`; end None: that of the recording."""
    times = {}
    for utterance, (line, value) in segments.items():
        where = f"{directory}/segments:{line}"
        recording, start, end, *rest = [*fields(value), "", "", ""]
        first, last = _seconds(start), _seconds(end)
        times[utterance] = recording, first, None if last == TO_THE_END else last
        if len(rest) != 3 or not 0 <= first < (last if last != TO_THE_END else math.inf) or last == math.inf:
            problems.append(f"{where}: expected a recording and 0 <= start < end in seconds, or the end "
                            f"{TO_THE_END} for the recording's, found {value!r}; mend or remove the segment")
        elif wav_scp and recording not in wav_scp:
            problems.append(f"{where}: recording {shown(recording, wav_scp)} is not in wav.scp; add it or remove "
                            f"{utterance}")
    return times


def _check_speakers(directory: Path, utt2spk: Table, spk2utt: Table | None, problems: list[str]) -> None:
    utterances_of = defaultdict(list)
    for utterance, (line, speaker) in utt2spk.items():
        utterances_of[speaker].append(utterance)
        if len(fields(speaker)) > 1:
            problems.append(f"{directory}/utt2spk:{line}: {speaker!r} is not one speaker-id; take out the blanks")
    if utt2spk and spk2utt:
        for speaker in sorted(utterances_of.keys() | spk2utt.keys()):
            line, listed = spk2utt.get(speaker, (len(spk2utt), ""))
            if sorted(fields(listed)) != sorted(utterances_of[speaker]):
                name = shown(speaker, utterances_of.keys() | spk2utt.keys())
                problems.append(f"{directory}/spk2utt:{line}: speaker {name} has the utterances "
                                f"{listed or 'none'} here, but {' '.join(utterances_of[speaker]) or 'none'} in "
                                "utt2spk; make spk2utt from utt2spk again")


def _check_same_utterances(directory: Path, tables: dict[str, Table], listed_in: str, problems: list[str],
                           remedy: str) -> None:
    """Every utterance must stand in each of the files that is there."""
    audio = "segments" if "segments" in tables else "wav.scp"
    for name in (audio, "utt2spk", "utt2dur"):
        for one, other in ((listed_in, name), (name, listed_in)):
            if tables.get(one) and tables.get(other):  # if not, the file as a whole has been reported
                missing = [key for key in tables[one] if key not in tables[other]]
                names = [shown(key, tables[other]) for key in missing[:MAX_PROBLEMS]] + missing[MAX_PROBLEMS:]
                problems += [f"{directory}/{one}:{tables[one][key][0]}: utterance {name} has no {CONTENT[other]} in "
                             f"{other}; {remedy} or remove the line" for key, name in zip(missing, names, strict=True)]


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _wav_scp_entry(utterance: Utterance, directory: Path, movable: Path) -> str:
    """What `wav.scp` says of an utterance's audio."""
    audio = os.path.abspath(utterance.audio)
    path = os.path.relpath(audio, directory) if Path(audio).is_relative_to(os.path.abspath(movable)) else audio
    path = path if utterance.offset is None else f"{path}:{utterance.offset}"
    return path if utterance.channel is None else f"sph2pipe -f wav -p -c {utterance.channel + 1} {path} |"
