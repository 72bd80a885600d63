"""Stage 1 on a corpus of three words."""

import logging
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tomli_w
import torch

from decant.experiment import Experiment
from decant.feat.data_dir import Utterance, write_data_dir
from decant.lang.language_model import read_arpa
from decant.lang.lexicon import read_lexicon
from steps.prepare_lang import main
from steps.stage_program import Stage

LEXICON = "GO G OW\nNO N OW\nYES Y EH S\n"


def prepare(exp: Path, train: str = "YES NO", dev: str = "NO", lexicon: str = LEXICON, name: str = "lexicon.txt",
            max_ngrams: int = 0, **settings) -> Path:
    """The folder that stage 1 fills from these transcripts, a letter of a speaker each, and this lexicon."""
    out = exp / "lang"
    out.mkdir(parents=True)
    soundfile.write(exp / "a.wav", np.zeros(8000), 8000)
    for split, words in (("train", train), ("dev", dev), ("test", "YES GO")):
        write_data_dir(exp / "data" / split, [Utterance("u1", "s", exp / "a.wav", tuple(words.split(" ")))])
    (exp / "data" / name).write_text(lexicon, encoding="utf-8")
    (out / "stage.toml").write_text(tomli_w.dumps({
        "lexicon": settings, "language_model": {"order": 2, "max_ngrams": max_ngrams}}))
    main(Stage(Experiment(exp, "lang", out), out, 1, torch.device("cpu")))
    return out


def test_a_split_in_another_case_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=re.escape("data/dev/text: 1 of 1 words (100.0%), 1 different ones, are not in "
                                                   "the lexicon, such as no, more than lexicon.max_unknown = 0.5 "
                                                   "allows; in upper case 1 of them would be")):
        prepare(tmp_path, dev="no")


def test_unknown_words_of_dev_are_counted_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    prepare(tmp_path, dev="NO QZX")
    assert (f"{tmp_path}/data/dev/text: 1 of 2 words (50.0%), 1 different ones, are not in the lexicon, such as QZX"
            in caplog.messages)


def test_unknown_words_of_train_are_refused_and_the_setting_named(tmp_path):
    with pytest.raises(ValueError, match="words missing from the lexicon: QZX .* or set lexicon.unknown_words to"):
        prepare(tmp_path, train="YES QZX NO")


def test_unknown_words_of_train_become_a_word_of_the_lexicon_and_of_the_language_model(tmp_path):
    out = prepare(tmp_path, train="YES QZX NO", unknown_words="spoken_noise", position_dependent_phones=True)
    assert read_lexicon(out / "lexicon.txt").pronunciations["<UNK>"] == (("SPN_S",),)
    model = read_arpa(out / "lm.arpa")
    assert ("YES", "<UNK>") in model.ngrams[1] and ("<UNK>", "NO") in model.ngrams[1]
    assert ("QZX",) not in model.ngrams[0]


def test_a_lexicon_with_probabilities_is_taken_where_there_is_one(tmp_path):
    text = "GO 1.0 G OW\nNO 1.0 N OW\nNO 0.5 N AH\nYES 1.0 Y EH S\n"
    out = prepare(tmp_path, lexicon=text, name="lexiconp.txt")
    assert (out / "lexicon.txt").read_text() == text


def test_text_for_the_language_model_is_split_as_transcripts_are(tmp_path):
    (tmp_path / "data").mkdir()
    word = "NO\u00a0NO"
    (tmp_path / "data/lm_text").write_text(f"\ufeffYES {word}\nGO\x0bYES\n", encoding="utf-8")
    model = read_arpa(prepare(tmp_path, lexicon=f"{LEXICON}{word} N OW N OW\n", dev=word) / "lm.arpa")
    assert {("<s>", "YES"), ("YES", word), ("GO", "YES")} <= model.ngrams[1].keys()


@pytest.mark.skipif(find_spec("phonetisaurus") is None, reason="phonetisaurus is not installed")
def test_words_of_train_and_of_the_language_model_s_text_are_pronounced_and_those_of_dev_are_not(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/lm_text").write_text("YES SEGO\n")
    out = prepare(tmp_path, train="YES NO NOGO [NOISE]", dev="NO GOSE", unknown_words="g2p")
    lexicon = read_lexicon(out / "lexicon.txt")
    assert {line.split()[0] for line in (out / "g2p.txt").read_text().splitlines()} == {"NOGO", "SEGO"}
    assert lexicon.pronunciations.keys() == {"<UNK>", "GO", "NO", "NOGO", "SEGO", "YES"}


def test_a_language_model_is_pruned_to_the_size_that_is_asked_for(tmp_path):
    out = prepare(tmp_path, train="YES NO YES NO GO YES NO", max_ngrams=7)
    assert 5 < read_arpa(out / "lm.arpa").num_ngrams <= 7
