"""Stage 0 of AN4: the corpus (github.com/cmusphinx/an4), fetched or given, as data directories, lexicon and LM.

  OUT/train, OUT/dev, OUT/test   the official split; dev is every N-th of the training speakers, taken out of train
  OUT/lexicon.txt                the corpus's dictionary; the second pronunciation A(2) becomes a second line of A
  OUT/lm.arpa                    the corpus's unigram LM, see `write_language_model`

Utterance-ids begin with the speaker, as in Kaldi's recipe: an251-fash-b becomes fash-an251-b. All transcripts are
upper case without noise marks, and all their words are in the dictionary.

an4.sha256 pins the corpus: the SHA-256 of each recording's samples (16-bit little-endian, without the header) and
of each file used in etc/. A folder given with --corpus is checked against it as a download is.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from decant import download
from decant.feat.audio import read_audio
from decant.feat.data_dir import Utterance, check_disjoint_speakers, write_data_dir
from decant.files import atomic_path
from decant.progress import progress
from decant.settings import config_field
from steps.stage_program import Stage, logger, run_step

REVISION = "b567d132f43304e70a2b2eca6077f22255311812"
URL = f"https://github.com/cmusphinx/an4/archive/{REVISION}.tar.gz"
SAMPLE_RATE = 16000  # Hz


@dataclass(frozen=True)
class CorpusConfig:
    """What AN4's splits are."""

    dev_speakers_in: int = config_field(10, "One in so many of the training speakers, sorted by name, goes to dev.")

    def __post_init__(self):
        if self.dev_speakers_in < 2:
            raise ValueError(f"dev_speakers_in {self.dev_speakers_in} must be at least 2: nobody is left to train on")


def main(stage: Stage) -> None:
    [config] = stage.config(data=CorpusConfig)
    corpus = Path(stage.corpus) if stage.corpus else fetch(URL, stage.experiment.root / "corpus")
    prepare(corpus, stage.out, config, Path(__file__).with_suffix(".sha256"), stage.experiment.root)


def prepare(corpus: Path, out: Path, config: CorpusConfig, checksums: Path, exp: Path) -> None:
    """Writes everything that this program writes, from the unpacked corpus. A corpus in the experiment folder `exp` can
    be moved with it."""
    check_corpus(corpus, checksums)
    train, test = read_split(corpus, "train"), read_split(corpus, "test")
    speakers = sorted({utterance.speaker for utterance in train})
    dev_speakers = speakers[config.dev_speakers_in - 1::config.dev_speakers_in]
    splits = {
        "train": [utterance for utterance in train if utterance.speaker not in dev_speakers],
        "dev": [utterance for utterance in train if utterance.speaker in dev_speakers],
        "test": test,
    }
    check_disjoint_speakers(splits)
    for name, utterances in splits.items():
        write_data_dir(out / name, utterances, movable=exp)
        logger.info("%s: %d utterances of %d speakers", name, len(utterances), len({u.speaker for u in utterances}))
    words = write_lexicon(corpus / "etc/an4.dic", out / "lexicon.txt")
    write_language_model(corpus / "etc/an4.lm", words, out / "lm.arpa")


def fetch(url: str, directory: Path) -> Path:
    """The unpacked corpus in `directory`, fetched if it is not there. Archive and folder are whole or not there."""
    corpus, archive = directory / f"an4-{REVISION}", directory / f"an4-{REVISION}.tar.gz"
    if corpus.is_dir():
        return corpus
    try:
        download.fetch(url, archive)
    except ValueError as error:
        raise ValueError(f"{error}; fetch and unpack it on a machine with a network, and give the folder that holds "
                         "etc/ and wav/ as --corpus") from error
    try:
        with download.unpacked(archive) as folder:
            (folder / corpus.name).rename(corpus)
    except (ValueError, FileNotFoundError) as error:
        archive.unlink()
        raise ValueError(f"{url}: not the archive that was expected ({error}); it has been removed: run again to "
                         "fetch it again, or give the corpus as --corpus") from error
    archive.unlink()
    return corpus


def check_corpus(corpus: Path, checksums: Path) -> None:
    """Raises FileNotFoundError or ValueError that names the first file which is not the publisher's."""
    lines = checksums.read_text().splitlines()
    for line in progress(lines, len(lines), "AN4, files checked"):
        expected, name = line.split(maxsplit=1)
        if not (corpus / name).is_file():
            raise FileNotFoundError(f"{corpus / name}: no such file; --corpus must be the folder that holds etc/ and "
                                    "wav/ of github.com/cmusphinx/an4, whole")
        if digest(corpus / name) != expected:
            raise ValueError(f"{corpus / name}: not the file that the publisher has; restore it, or leave --corpus "
                             "out to fetch the corpus again")


def digest(path: Path) -> str:
    """SHA-256 of a file, for a recording of its samples."""
    content = path.read_bytes() if path.suffix != ".wav" else read_audio(path, SAMPLE_RATE).astype("<i2").tobytes()
    return hashlib.sha256(content).hexdigest()


def read_split(corpus: Path, split: str) -> list[Utterance]:
    """The utterances of `train` or `test`. Only train's transcripts have <s> and </s> around them."""
    transcripts = corpus / f"etc/an4_{split}.transcription"
    names = (corpus / f"etc/an4_{split}.fileids").read_text().split()
    lines = transcripts.read_text().splitlines()
    utterances = []
    for number, (name, line) in enumerate(zip(names, lines, strict=True), start=1):
        match = re.fullmatch(r"(?:<s> )?(.+?)(?: </s>)? \((\w+)-(\w+)-(\w+)\)", line)
        if not match or "-".join(match.groups()[1:]) != Path(name).name:
            raise ValueError(f"{transcripts}:{number}: expected `WORDS ({Path(name).name})`, found {line!r}")
        words, prompt, speaker, session = match.groups()
        utterances.append(Utterance(f"{speaker}-{prompt}-{session}", speaker, corpus / f"wav/{name}.wav",
                                    tuple(words.split())))
    return utterances


def write_lexicon(dictionary: Path, path: Path) -> set[str]:
    """Writes `WORD PHONE PHONE ...` lines and returns the words."""
    entries = [re.sub(r"^(\S+?)\(\d+\)", r"\1", line).split() for line in dictionary.read_text().splitlines()]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(" ".join(entry) + "\n" for entry in sorted(entries)))
    return {word for word, *_ in entries}


def write_language_model(arpa: Path, words: set[str], path: Path) -> None:
    """Writes the corpus's LM as a clean unigram ARPA file of the words in the lexicon, probabilities unchanged.

    The original begins with a long comment, which itself holds the line \\1-grams:, and gives </s> a back-off
    weight of -99. Left out, as in Kaldi's recipe, are the words without a pronunciation, <UNK> among them. Left out
    too is its one bigram, <s> </s> of probability one, which would make the empty sentence free of charge.
    """
    data = arpa.read_text().split("\n\\data\\\n")[1].split("\\1-grams:\n")[1].split("\n\\2-grams:")[0]
    unigrams = {word: probability for probability, word, *_ in map(str.split, data.splitlines())}
    kept = {word: unigrams[word] for word in sorted(unigrams) if word in words | {"<s>", "</s>"}}
    logger.info("lm.arpa: without %s, which have no pronunciation; %s have one, but are not in the LM and cannot be "
                "recognised", " ".join(sorted(unigrams.keys() - kept)), " ".join(sorted(words - kept.keys())))
    lines = "".join(f"{probability}\t{word}\n" for word, probability in kept.items())
    with atomic_path(path) as temporary:
        temporary.write_text(f"\\data\\\nngram 1={len(kept)}\n\n\\1-grams:\n{lines}\n\\end\\\n")


if __name__ == "__main__":
    run_step(main)
