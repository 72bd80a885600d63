"""Stage 0 of LibriSpeech, on a corpus of a few utterances in the publisher's layout."""

import hashlib
import tarfile

import numpy as np
import pytest
import soundfile

from decant.download import Pinned
from decant.feat.data_dir import read_data_dir
from decant.lang.language_model import NgramModel, write_arpa
from decant.lang.lexicon import read_lexicon
from local import librispeech, openslr
from local.librispeech import CorpusConfig, prepare, write_words
from local.librispeech_layout import find_root, read_speakers, read_subset

SPEAKERS = """; comments, a | bar among them
;ID  |SEX| SUBSET           |MINUTES| NAME
19   | F | train-clean-100  | 25.19 | Kara
26   | M | train-clean-100  | 25.19 | |CBW| Simon
103  | F | train-clean-100  | 25.10 | Karen
7    | M | test-clean       |  8.01 | A
8    | f | test-other       |  8.01 | Zo\u00eb
"""
UTTERANCES = {
    "train-clean-100": {"19-198-0000": "HELLO WORLD", "19-198-0001": "A WORLD", "19-227-0000": "IT'S NEW",
                        "26-495-0000": "HELLO", "103-1240-0000": "NEW WORLD"},
    "test-clean": {"7-1-0000": "HELLO WORLD"},
    "test-other": {"8-2-0000": "A STRANGE WORLD"},
}
CONFIG = CorpusConfig(dev=(), dev_readers_in=3, lexicon="cmudict", lm="train")


def write_subset(root, subset, utterances):
    for utterance, words in utterances.items():
        reader, chapter, _ = utterance.split("-")
        folder = root / subset / reader / chapter
        folder.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(0).normal(size=16000) / 10
        soundfile.write(folder / f"{utterance}.flac", samples, 16000)
        with open(folder / f"{reader}-{chapter}.trans.txt", "a") as file:
            file.write(f"{utterance} {words}\n")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "LibriSpeech"
    for subset, utterances in UTTERANCES.items():
        write_subset(root, subset, utterances)
    (root / "train-clean-100/.complete").touch()
    (root / "SPEAKERS.TXT").write_text(SPEAKERS, encoding="utf-8")
    return root


def ids(out, *splits):
    return {split: [(u.id, u.speaker) for u in read_data_dir(out / split)] for split in splits}


def test_every_nth_reader_goes_to_dev_and_every_test_subset_is_a_test_set(root, tmp_path):
    prepare(root, tmp_path / "out", CONFIG, tmp_path)
    assert ids(tmp_path / "out", "train", "dev", "test_clean", "test_other") == {
        "train": [("19-198-0000", "19-198"), ("19-198-0001", "19-198"), ("19-227-0000", "19-227"),
                  ("26-495-0000", "26-495")],
        "dev": [("103-1240-0000", "103-1240")],  # the third by number, not by name
        "test_clean": [("7-1-0000", "7-1")],
        "test_other": [("8-2-0000", "8-2")],
    }
    [utterance] = read_data_dir(tmp_path / "out/test_other")
    assert utterance.words == ("A", "STRANGE", "WORLD")
    assert utterance.audio.samefile(root / "test-other/8/2/8-2-0000.flac")
    assert (tmp_path / "out/train/spk2gender").read_text() == "19-198 f\n19-227 f\n26-495 m\n"


def test_a_speaker_may_be_a_reader(root, tmp_path):
    prepare(root, tmp_path / "out", CorpusConfig(dev=(), dev_readers_in=3, speaker="reader"), tmp_path)
    assert [speaker for _, speaker in ids(tmp_path / "out", "train")["train"]] == ["19", "19", "19", "26"]
    assert (tmp_path / "out/train/spk2gender").read_text() == "19 f\n26 m\n"


def test_of_fewer_readers_than_one_in_so_many_the_last_goes_to_dev(root, tmp_path):
    prepare(root, tmp_path / "out", CorpusConfig(dev=(), dev_readers_in=10), tmp_path)
    assert ids(tmp_path / "out", "dev") == {"dev": [("103-1240-0000", "103-1240")]}
    with pytest.raises(ValueError, match="train has the reader 7 alone, and dev needs another"):
        prepare(root, tmp_path / "out", CorpusConfig(train=("test-clean",), dev=(), test=("test-other",)), tmp_path)


def test_any_subsets_serve_for_train_dev_and_test(root, tmp_path):
    config = CorpusConfig(train=("test-clean", "test-other"), dev=("train-clean-100",), test=("dev-clean",))
    write_subset(root, "dev-clean", {"26-1-0000": "HELLO"})
    with pytest.raises(ValueError, match="speakers in more than one split: 26 .dev, test_dev_clean."):
        prepare(root, tmp_path / "out", config, tmp_path)
    (root / "SPEAKERS.TXT").write_text(SPEAKERS + "9 | M | dev-clean | 1 | X\n", encoding="utf-8")
    write_subset(root, "dev-other", {"9-1-0000": "HELLO"})
    config = CorpusConfig(train=("test-clean", "test-other"), dev=("train-clean-100",), test=("dev-other",))
    prepare(root, tmp_path / "out", config, tmp_path)
    assert ids(tmp_path / "out", "train", "test_dev_other") == {
        "train": [("7-1-0000", "7-1"), ("8-2-0000", "8-2")], "test_dev_other": [("9-1-0000", "9-1")]}


def test_the_corpus_may_be_the_folder_around_it_and_a_missing_subset_is_named_with_those_there(root, tmp_path):
    assert find_root(tmp_path, ["test-clean"]) == find_root(root, ["test-clean"]) == root
    there = "found are test-clean, test-other, train-clean-100; name these in data.train"
    for corpus in (tmp_path, root):
        with pytest.raises(FileNotFoundError, match=f"LibriSpeech: there is no subset dev-clean; {there}"):
            find_root(corpus, ["test-clean", "dev-clean"])
        with pytest.raises(FileNotFoundError, match=f"there is no subset dev-clean; {there}"):
            find_root(corpus, ["dev-clean"])
    with pytest.raises(FileNotFoundError, match="there is no subset dev-clean; found are none"):
        find_root(tmp_path / "nowhere", ["dev-clean"])


def test_transcripts_and_recordings_that_do_not_fit_are_named_with_their_lines(root):
    speakers = read_speakers(root / "SPEAKERS.TXT")
    folder = root / "train-clean-100/19/198"
    (folder / "19-198-0001.flac").rename(folder / "19-198-0002.flac")
    (folder / "19-198.trans.txt").write_text("19-198-0000 HELLO\n19-198-0001 A WORLD\n19-198-0000 HELLO\n"
                                             "26-495-0000 HELLO\n")
    (root / "train-clean-100/26/495/26-495.trans.txt").unlink()
    (root / "train-clean-100/103/1240/103-1240.trans.txt").write_text("103-1240-0000 \n")
    (root / "train-clean-100/twenty").mkdir()
    with pytest.raises(ValueError) as caught:
        read_subset(root, "train-clean-100", speakers, "chapter")
    lines = str(caught.value).replace(f"{root}/train-clean-100/", "").splitlines()
    trans = "19/198/19-198.trans.txt"
    for line, expected in zip(lines, [
            "twenty: not a reader's or a chapter's folder",
            "103/1240/103-1240.trans.txt:1: 103-1240-0000 has no words",
            f"{trans}:2: 19-198-0001 has no recording 19/198/19-198-0001.flac",
            f"{trans}:3: 19-198-0000 is on {trans}:1 already",
            f"{trans}:4: 26-495-0000 is not of the chapter 19-198",
            f"{trans}: no line for the recording 19-198-0002",
            "26/495/26-495.trans.txt: no such file, with the transcripts of 1 recordings"], strict=True):
        assert line.startswith(expected)


def test_a_reader_whom_the_list_lacks_or_has_twice_or_without_gender_is_named(root):
    path = root / "SPEAKERS.TXT"
    path.write_text(SPEAKERS.replace("26   |", "27   |"), encoding="utf-8")
    with pytest.raises(ValueError, match="SPEAKERS.TXT: no line for the reader 26, who has the folder .*100/26"):
        read_subset(root, "train-clean-100", read_speakers(path), "chapter")
    path.write_text(SPEAKERS + "19 | F | test-clean | 1 | Kara\n", encoding="utf-8")
    with pytest.raises(ValueError, match="SPEAKERS.TXT:8: the reader 19 is in a line before already"):
        read_speakers(path)
    path.write_text("19 | F | x\n26 | | y\n")
    with pytest.raises(ValueError, match="SPEAKERS.TXT:2: expected `READER . M or F"):
        read_speakers(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="SPEAKERS.TXT: no such file"):
        read_speakers(path)


def test_subsets_that_share_utterances_or_hold_none_are_refused(root, tmp_path):
    write_subset(root, "train-clean-5", {"19-198-0000": "HELLO WORLD"})
    both = CorpusConfig(train=("train-clean-100", "train-clean-5"), dev=("test-clean",), test=("test-other",))
    with pytest.raises(ValueError, match="train: two utterances have the id 19-198-0000"):
        prepare(root, tmp_path / "out", both, tmp_path)
    (root / "train-clean-360").mkdir()
    with pytest.raises(ValueError, match="train-clean-360: no recordings"):
        read_subset(root, "train-clean-360", {}, "chapter")


@pytest.mark.parametrize(("fields", "message"), [
    ({"train": ()}, "train and test each need a subset"), ({"test": ("../x",)}, "'../x' is not the name of a subset"),
    ({"dev": ("test-clean",)}, "the subset test-clean is named twice"), ({"dev_readers_in": 1}, "must be at least 2"),
    ({"speaker": "book"}, "known are chapter and reader"), ({"mirror": "ftp://x"}, "begins with https://"),
    ({"lexicon": ""}, "may not be empty")])
def test_a_config_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CorpusConfig(**fields)


def test_hours_are_known_of_published_subsets_alone():
    assert CorpusConfig().hours == pytest.approx({"train": 100.6, "dev": 10.7, "test": 10.5})
    assert CorpusConfig(dev=()).hours == pytest.approx({"train": 90.54, "dev": 10.06, "test": 10.5})
    assert CorpusConfig(train=("mine",)).hours is None


def test_the_cmu_dictionary_gives_words_in_upper_case_without_stress(tmp_path):
    write_words(CONFIG, tmp_path, tmp_path, [])
    words = read_lexicon(tmp_path / "lexicon.txt").pronunciations
    assert words["A"] == (("AH",), ("EY",)) and words["IT'S"] == (("IH", "T", "S"),)
    assert not (tmp_path / "lm.arpa").exists()


def test_a_lexicons_file_may_keep_its_stress_or_give_probabilities(tmp_path):
    (tmp_path / "mine.txt").write_text("HELLO HH AH0 L OW1\nHELLO HH AH0 L OW0\n")
    mine = str(tmp_path / "mine.txt")
    write_words(CorpusConfig(lexicon=mine, lm="train"), tmp_path, tmp_path, [])
    assert (tmp_path / "lexicon.txt").read_text() == "HELLO HH AH L OW\n"
    write_words(CorpusConfig(lexicon=mine, lm="train", stress=True), tmp_path, tmp_path, [])
    assert (tmp_path / "lexicon.txt").read_text() == "HELLO HH AH0 L OW1\nHELLO HH AH0 L OW0\n"
    (tmp_path / "mine.txt").write_text("HELLO 0.5 HH AH0 L OW1\nHELLO 1.0 HH AH0 L OW0\n")
    write_words(CorpusConfig(lexicon=mine, lm="train"), tmp_path, tmp_path, [])
    assert (tmp_path / "lexiconp.txt").read_text() == "HELLO 1.0 HH AH L OW\n"
    assert CorpusConfig(lexicon=mine).files == ("lexicon",) and CONFIG.files == ()


def publish(folder, monkeypatch, **contents):
    """A folder that the publisher's files come from, and their hashes."""
    table = {}
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        table[path.rsplit("/", 1)[1]] = path, Pinned(len(content), "md5", hashlib.md5(content).hexdigest())
    monkeypatch.setattr(openslr, "published", lambda: table)
    return folder.as_uri()


def test_published_words_come_from_the_corpus_folder_or_from_the_publisher(tmp_path, monkeypatch):
    lm = "3-gram.pruned.3e-7.arpa.gz"
    write_arpa(NgramModel(({("<s>",): (-99.0, 0.0), ("</s>",): (-0.3, 0.0), ("HELLO",): (-0.3, 0.0)},)), tmp_path / lm)
    published = {f"resources/11/{openslr.LEXICON}": b"HELLO\tHH AH0 L OW1\n",
                 f"resources/11/{lm}": (tmp_path / lm).read_bytes()}
    config = CorpusConfig(mirror=publish(tmp_path / "site", monkeypatch, **published))
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / openslr.LEXICON).write_text("MINE M AY1 N\n")
    for name, folders, word in (("a", [], "HELLO"), ("b", [tmp_path / "given"], "MINE")):
        (tmp_path / name).mkdir()
        write_words(config, tmp_path / name, tmp_path / name / "corpus", folders)
        assert list(read_lexicon(tmp_path / name / "lexicon.txt").pronunciations) == [word]
        assert (tmp_path / name / "lm.arpa").read_bytes() == (tmp_path / lm).read_bytes()
    assert not (tmp_path / "b/corpus" / openslr.LEXICON).exists()

    (tmp_path / "site/resources/11" / openslr.LEXICON).unlink()
    with pytest.raises(ValueError, match="cannot be fetched.* put librispeech-lexicon.txt into the folder .*cmudict"):
        write_words(config, tmp_path / "a", tmp_path / "none", [])


def test_a_subset_is_fetched_once_beside_its_lists_and_moves_with_the_experiment(root, tmp_path, monkeypatch):
    archives = {}
    for subset in UTTERANCES:
        with tarfile.open(tmp_path / "archive", "w:gz") as tar:
            tar.add(root / "SPEAKERS.TXT", "LibriSpeech/SPEAKERS.TXT")
            tar.add(root / subset, f"LibriSpeech/{subset}")
        archives[f"resources/12/{subset}.tar.gz"] = (tmp_path / "archive").read_bytes()
    mirror = publish(tmp_path / "site", monkeypatch, **archives)
    downloads = tmp_path / "exp/corpus"
    for subset in UTTERANCES:
        openslr.fetch_subset(subset, downloads, mirror)
    assert [path.name for path in downloads.iterdir()] == ["LibriSpeech"]
    for subset in UTTERANCES:
        openslr.fetch_subset(subset, downloads, "file:///nowhere")
    prepare(downloads, tmp_path / "exp/data", CONFIG, tmp_path / "exp")
    (tmp_path / "exp").rename(tmp_path / "moved")
    assert len(read_data_dir(tmp_path / "moved/data/train")) == 4


def test_a_subset_that_is_not_published_or_not_in_its_archive_is_refused_and_none_is_there(root, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="mine: not a published subset; known are dev-clean, dev-other"):
        openslr.fetch_subset("mine", tmp_path / "fetched", "file:///nowhere")
    with pytest.raises(ValueError, match="dev-clean.tar.gz: cannot be fetched .*; give a folder that has dev-clean as"):
        openslr.fetch_subset("dev-clean", tmp_path / "fetched", "file:///nowhere")
    with tarfile.open(tmp_path / "archive", "w:gz") as tar:
        tar.add(root / "test-other", "LibriSpeech/test-other")
    mirror = publish(tmp_path / "site", monkeypatch,
                     **{"resources/12/test-clean.tar.gz": (tmp_path / "archive").read_bytes()})
    with pytest.raises(ValueError, match="has no LibriSpeech/test-clean"):
        openslr.fetch_subset("test-clean", tmp_path / "fetched", mirror)
    assert list((tmp_path / "fetched").rglob("test-*/")) == []


def test_pinned_files_are_the_subsets_of_both_resources_lexicon_and_lms():
    assert openslr.subsets() == list(librispeech.HOURS)
    assert len(openslr.language_models()) == 4 and openslr.LEXICON in openslr.published()
    for _, pinned in openslr.published().values():
        assert len(pinned.digest) == {"sha256": 64, "md5": 32}[pinned.algorithm]
