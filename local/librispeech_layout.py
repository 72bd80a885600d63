"""LibriSpeech's published layout, read with every check: ROOT/SPEAKERS.TXT, ROOT/SUBSET/READER/CHAPTER/, which has the
recordings READER-CHAPTER-0000.flac ... and READER-CHAPTER.trans.txt, a line `READER-CHAPTER-0000 WORDS` for each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from decant.feat.data_dir import MAX_PROBLEMS, Utterance
from decant.text import byte_lines, read_fields

FOLDER = "LibriSpeech"  # what every archive holds


def find_root(corpus: Path, subsets: Sequence[str]) -> Path:
    """The folder that holds the subsets: `corpus`, or LibriSpeech in it. Raises FileNotFoundError saying which subset
    is not there, and which are."""
    roots = [root for root in (corpus, corpus / FOLDER) if any((root / subset).is_dir() for subset in subsets)]
    for subset in subsets:
        if not roots or not (roots[0] / subset).is_dir():
            there = sorted({path.parent.parent.name for root in (corpus, corpus / FOLDER)
                            for path in root.glob("*/*/*/") if path.name.isdigit() and path.parent.name.isdigit()})
            raise FileNotFoundError(
                f"{(roots or [corpus])[0]}: there is no subset {subset}; found are {', '.join(there) or 'none'}; name "
                f"these in data.train, data.dev and data.test, or give as --corpus the folder that has {subset}, or "
                f"{FOLDER}/{subset}")
    return roots[0]


def read_speakers(path: Path) -> dict[str, str]:
    """{reader: M or F} of SPEAKERS.TXT: `READER | SEX | SUBSET | MINUTES | NAME`, comments after a semicolon. Raises
    FileNotFoundError, and ValueError naming file and line."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; every published archive has it: restore it")
    speakers: dict[str, str] = {}
    for number, line in enumerate(byte_lines(path), start=1):
        if not line.strip() or line.startswith(b";"):
            continue
        reader, sex = ([field.decode("utf-8", "replace").strip() for field in line.split(b"|")] + [""])[:2]
        if not reader.isdigit() or sex.upper() not in ("M", "F"):
            raise ValueError(f"{path}:{number}: expected `READER | M or F | ...`, found "
                             f"{line.decode('utf-8', 'replace')!r}; restore the file")
        if reader in speakers:
            raise ValueError(f"{path}:{number}: the reader {reader} is in a line before already; restore the file")
        speakers[reader] = sex.upper()
    return speakers


def reader_of(utterance: Utterance) -> str:
    """The reader of an utterance, the first part of its id."""
    return utterance.id.partition("-")[0]


def read_subset(root: Path, subset: str, speakers: Mapping[str, str], speaker: str) -> list[Utterance]:
    """The utterances of a subset in the order of their ids. speaker: `chapter` or `reader`, who counts as one.

    Raises one ValueError with a line for each of the first 10 problems: a chapter without transcripts, a recording
    without a transcript, a transcript without a recording or words, or given twice, a reader who is not in `speakers`,
    a folder of another name; and for a subset without recordings.
    """
    utterances: list[Utterance] = []
    problems: list[str] = []
    for reader in folders(root / subset, problems):
        if reader.name not in speakers:
            problems.append(f"{root / 'SPEAKERS.TXT'}: no line for the reader {reader.name}, who has the folder "
                            f"{reader}; restore the file")
        for chapter in folders(reader, problems):
            name = f"{reader.name}-{chapter.name}"
            recordings = {path.stem: path for path in sorted(chapter.iterdir())
                          if path.suffix.lower() == ".flac" and not path.name.startswith(".")}
            words = read_transcripts(chapter / f"{name}.trans.txt", name, recordings, problems)
            utterances += [Utterance(utterance, name if speaker == "chapter" else reader.name, path, words[utterance])
                           for utterance, path in recordings.items() if utterance in words]
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise ValueError("\n".join(problems[:MAX_PROBLEMS] + [f"... and {more} more problems"] * (more > 0)))
    if not utterances:
        raise ValueError(f"{root / subset}: no recordings; expected {subset}/READER/CHAPTER/*.flac")
    return sorted(utterances, key=lambda utterance: utterance.id)


def folders(directory: Path, problems: list[str]) -> list[Path]:
    """The folders of readers or chapters, whose names are numbers; of others it is said so in `problems`."""
    found = [path for path in sorted(directory.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    problems += [f"{path}: not a reader's or a chapter's folder, whose name is a number; move it elsewhere"
                 for path in found if not path.name.isdigit()]
    return [path for path in found if path.name.isdigit()]


def read_transcripts(path: Path, chapter: str, recordings: Mapping[str, Path],
                     problems: list[str]) -> dict[str, tuple[str, ...]]:
    """The words of a chapter's utterances; what does not fit its recordings is said in `problems`."""
    if not path.is_file():
        if recordings:
            problems.append(f"{path}: no such file, with the transcripts of {len(recordings)} recordings beside it; "
                            "restore it")
        return {}
    lines: dict[str, str] = {}
    words: dict[str, tuple[str, ...]] = {}
    for place, (utterance, *spoken) in read_fields(path):
        if utterance in lines:
            problems.append(f"{place}: {utterance} is on {lines[utterance]} already; remove one of the two")
            continue
        lines[utterance], words[utterance] = place, tuple(spoken)
        if not utterance.startswith(f"{chapter}-"):
            problems.append(f"{place}: {utterance} is not of the chapter {chapter}; restore the file")
        elif utterance not in recordings:
            problems.append(f"{place}: {utterance} has no recording {path.parent / utterance}.flac; restore it or "
                            "remove the line")
        elif not spoken:
            problems.append(f"{place}: {utterance} has no words; complete the line or remove it and its recording")
    problems += [f"{path}: no line for the recording {recording}; restore the line or remove {recordings[recording]}"
                 for recording in sorted(recordings.keys() - lines.keys())]
    return words
