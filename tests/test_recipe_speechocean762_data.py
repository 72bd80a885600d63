"""Stage 0 of speechocean762, on a corpus of a few utterances in the publisher's layout."""

import numpy as np
import pytest
import soundfile

from decant.feat.data_dir import read_data_dir
from decant.lang.lexicon import read_lexicon
from local.speechocean762 import CorpusConfig, prepare

TRAIN = {"000010001": "HELLO WORLD", "000010002": "A WORLD", "000020001": "HELLO WORLD", "000030001": "NEW WORLD"}
TEST = {"000090001": "HELLO WORLD", "000090002": "STRANGE HELLO"}


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "resource").mkdir()
    (tmp_path / "resource" / "lexicon.txt").write_text(
        "A\tAH0\nA\tEY1\nHELLO\tHH AH0 L OW1\nHELLO\tHH AH0 L OW0\nNEW\tN UW1\nSTRANGE\tS T R EY1 N JH\n"
        "WORLD\tW ER1 L D\n")
    for split, texts in (("train", TRAIN), ("test", TEST)):
        (tmp_path / split).mkdir()
        for name, lines in (
                ("text", [f"{name}\t{words}" for name, words in texts.items()]),
                ("wav.scp", [f"{name}\tWAVE/{name}.WAV" for name in texts]),
                ("utt2spk", [f"{name} {name[1:5]}" for name in texts])):
            (tmp_path / split / name).write_text("".join(line + "\n" for line in lines))
        for name in texts:
            (tmp_path / "WAVE").mkdir(exist_ok=True)
            soundfile.write(tmp_path / "WAVE" / f"{name}.WAV", np.zeros(16000), 16000, format="WAV")
    return tmp_path


def test_dev_speakers_come_out_of_train_and_ids_begin_with_the_speaker(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    prepare(corpus, tmp_path / "out", CorpusConfig(dev_speakers_in=3))
    ids = {split: [u.id for u in read_data_dir(tmp_path / "out" / split)] for split in ("train", "dev", "test")}
    assert ids == {"train": ["0001-000010001", "0001-000010002", "0002-000020001"], "dev": ["0003-000030001"],
                   "test": ["0009-000090001", "0009-000090002"]}
    said = caplog.text
    assert "test: 2 utterances of 1 speakers, 1 of 2 with a sentence of train, 1 of 4 words (25.0%) not in" in said
    assert "dev: 1 utterances of 1 speakers, 0 of 1 with a sentence of train, 0 of 2 words (0.0%) not in" in said


def test_the_lexicon_has_the_training_words_without_stress(corpus, tmp_path):
    prepare(corpus, tmp_path / "out", CorpusConfig(dev_speakers_in=3))
    lexicon = read_lexicon(tmp_path / "out" / "lexicon.txt")
    assert lexicon.pronunciations == {"A": (("AH",), ("EY",)), "HELLO": (("HH", "AH", "L", "OW"),),
                                      "NEW": (("N", "UW"),), "WORLD": (("W", "ER", "L", "D"),)}


def test_a_missing_list_and_a_missing_line_are_named(corpus, tmp_path):
    text = corpus / "train" / "text"
    text.write_text(text.read_text().replace("000020001\tHELLO WORLD\n", ""))
    with pytest.raises(ValueError, match="train/text: no line for the utterance 000020001"):
        prepare(corpus, tmp_path / "out", CorpusConfig())
    text.unlink()
    with pytest.raises(FileNotFoundError, match="train/text: no such file; --corpus has to be the folder"):
        prepare(corpus, tmp_path / "out", CorpusConfig())
