"""Stage 0 of speechocean762 (openslr.org/101): the corpus, given as a folder, as data directories and lexicon.

  OUT/train, OUT/dev, OUT/test   the published split; dev is every N-th of the training speakers, taken out of train
  OUT/lexicon.txt                the corpus's lexicon without marks of stress, the words of the published train/text

The trigram is estimated from OUT/train/text, so that dev tells how well it does on sentences that it has not seen.
Utterance-ids begin with the speaker: 000360013 becomes 0036-000360013.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from decant.feat.data_dir import Utterance, check_disjoint_speakers, write_data_dir
from decant.lang.lexicon import make_lexicon, write_lexicon
from decant.settings import config_field
from decant.text import read_fields
from steps.stage_program import Stage, logger, run_step


@dataclass(frozen=True)
class CorpusConfig:
    """What speechocean762's splits are."""

    dev_speakers_in: int = config_field(10, "One in so many of the training speakers, sorted by name, goes to dev.")

    def __post_init__(self):
        if self.dev_speakers_in < 2:
            raise ValueError(f"dev_speakers_in {self.dev_speakers_in} must be at least 2: nobody is left to train on")


def main(stage: Stage) -> None:
    [config] = stage.config(data=CorpusConfig)
    if not stage.corpus:
        raise ValueError("fetch speechocean762 from https://www.openslr.org/101/ (520 MB), unpack it, and give the "
                         "folder that holds train/, test/, WAVE/ and resource/ as --corpus")
    prepare(Path(stage.corpus), stage.out, config)


def prepare(corpus: Path, out: Path, config: CorpusConfig) -> None:
    """Writes everything that this program writes, from the unpacked corpus."""
    train, test = read_split(corpus, "train"), read_split(corpus, "test")
    speakers = sorted({utterance.speaker for utterance in train})
    dev_speakers = speakers[config.dev_speakers_in - 1::config.dev_speakers_in]
    splits = {
        "train": [utterance for utterance in train if utterance.speaker not in dev_speakers],
        "dev": [utterance for utterance in train if utterance.speaker in dev_speakers],
        "test": test,
    }
    check_disjoint_speakers(splits)
    words = {word for utterance in train for word in utterance.words}
    entries = [(word, tuple(phone.rstrip("012") for phone in phones))
               for _, (word, *phones) in read_fields(corpus / "resource" / "lexicon.txt") if word in words]
    known = {utterance.words for utterance in splits["train"]}
    for name, utterances in splits.items():
        write_data_dir(out / name, utterances)
        logger.info("%s: %d utterances of %d speakers, %s", name, len(utterances), len({u.speaker for u in utterances}),
                    overlap(utterances, known, words))
    write_lexicon(make_lexicon(entries), out / "lexicon.txt")


def overlap(utterances: Iterable[Utterance], known: set[tuple[str, ...]], words: set[str]) -> str:
    """What of a split was in the training texts: it makes word error rates optimistic."""
    utterances = list(utterances)
    shared = sum(utterance.words in known for utterance in utterances)
    spoken = [word for utterance in utterances for word in utterance.words]
    missing = sum(word not in words for word in spoken)
    return (f"{shared} of {len(utterances)} with a sentence of train, {missing} of {len(spoken)} words "
            f"({100 * missing / len(spoken):.1f}%) not in the lexicon")


def read_split(corpus: Path, split: str) -> list[Utterance]:
    """The utterances of `train` or `test`, from its text, wav.scp and utt2spk.

    Raises FileNotFoundError if a list is not there, ValueError naming an utterance that one of them lacks.
    """
    tables = {}
    for name in ("text", "wav.scp", "utt2spk"):
        if not (corpus / split / name).is_file():
            raise FileNotFoundError(f"{corpus / split / name}: no such file; --corpus has to be the folder that holds "
                                    "train/, test/, WAVE/ and resource/ of speechocean762")
        tables[name] = {utterance: fields for _, (utterance, *fields) in read_fields(corpus / split / name)}
    for name, table in tables.items():
        if missing := sorted(set().union(*tables.values()) - table.keys()):
            raise ValueError(f"{corpus / split / name}: no line for the utterance {missing[0]}; restore the file")
    return [Utterance(f"{speaker}-{utterance}", speaker, corpus / tables["wav.scp"][utterance][0],
                      tuple(tables["text"][utterance])) for utterance, (speaker,) in tables["utt2spk"].items()]


if __name__ == "__main__":
    run_step(main)
