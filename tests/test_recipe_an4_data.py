import hashlib
import io
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from decant.feat.data_dir import read_data_dir
from local import an4
from local.an4 import CorpusConfig

ETC = {
    "an4.dic": "A              AH\nA(2)           EY\nGO             G OW\nNO             N OW\n",
    # As the publisher's: a comment that quotes the format, an open vocabulary, one bigram.
    "an4.lm": "##########\nBeginning of data mark: \\data\\\n\\1-grams:\np_1     wd_1 bo_wt_1\n\\2-grams:\n\n"
              "\\data\\\nngram 1=6\nngram 2=1\n\n\\1-grams:\n-0.7000\t<UNK>\t0.0000\n-0.7000\t</s>\t-99.0000\n"
              "-99.0000\t<s>\t 0.0000\n-0.7000\tA\t 0.0000\n-0.7000\tGO\t 0.0000\n-0.7000\tWEAN\t 0.0000\n\n"
              "\\2-grams:\n0.0000 <s> </s>\n\\end\\\n",
    "an4_train.fileids": "an4_clstk/fash/an251-fash-b\nan4_clstk/mblb/cen1-mblb-b\nan4_clstk/mcsc/cen2-mcsc-b\n",
    "an4_train.transcription": "<s> GO </s> (an251-fash-b)\n<s> A GO </s> (cen1-mblb-b)\n<s> NO </s> (cen2-mcsc-b)\n",
    "an4_test.fileids": "an4test_clstk/fcaw/an406-fcaw-b\n",
    "an4_test.transcription": "GO A (an406-fcaw-b)\n",
}


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A corpus of four recordings as the publisher lays it out; beside it `sums` has the checksums."""
    folder = tmp_path / f"an4-{an4.REVISION}"
    (folder / "etc").mkdir(parents=True)
    sums = []
    for name, content in ETC.items():
        (folder / "etc" / name).write_text(content)
        sums.append(f"{hashlib.sha256(content.encode()).hexdigest()}  etc/{name}\n")
    for number, name in enumerate((ETC["an4_train.fileids"] + ETC["an4_test.fileids"]).split()):
        samples = np.arange(number, 8000, dtype="<i2")
        (folder / "wav" / name).parent.mkdir(parents=True)
        soundfile.write(folder / "wav" / f"{name}.wav", samples, 16000)
        sums.append(f"{hashlib.sha256(samples.tobytes()).hexdigest()}  wav/{name}.wav\n")
    (tmp_path / "sums").write_text("".join(sums))
    return folder


def prepare(corpus: Path, tmp_path: Path) -> Path:
    an4.prepare(corpus, tmp_path / "out" / "data", CorpusConfig(dev_speakers_in=2), tmp_path / "sums", tmp_path / "out")
    return tmp_path / "out" / "data"


def test_every_second_training_speaker_goes_to_dev_and_ids_begin_with_the_speaker(corpus, tmp_path):
    out = prepare(corpus, tmp_path)
    splits = {name: {u.id: (u.speaker, " ".join(u.words)) for u in read_data_dir(out / name)}
              for name in ("train", "dev", "test")}
    assert splits == {
        "train": {"fash-an251-b": ("fash", "GO"), "mcsc-cen2-b": ("mcsc", "NO")},
        "dev": {"mblb-cen1-b": ("mblb", "A GO")},
        "test": {"fcaw-an406-b": ("fcaw", "GO A")},
    }
    assert read_data_dir(out / "test")[0].audio == corpus / "wav/an4test_clstk/fcaw/an406-fcaw-b.wav"


def test_second_pronunciations_become_second_lines_of_the_lexicon(corpus, tmp_path):
    assert (prepare(corpus, tmp_path) / "lexicon.txt").read_text() == "A AH\nA EY\nGO G OW\nNO N OW\n"


def test_the_lm_keeps_its_probabilities_and_only_words_of_the_lexicon(corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert (prepare(corpus, tmp_path) / "lm.arpa").read_text() == (
        "\\data\\\nngram 1=4\n\n\\1-grams:\n-0.7000\t</s>\n-99.0000\t<s>\n-0.7000\tA\n-0.7000\tGO\n\n\\end\\\n"
    )
    assert "without <UNK> WEAN, which have no pronunciation; NO have one" in caplog.text


@pytest.mark.parametrize("name", ["etc/an4.dic", "wav/an4_clstk/mblb/cen1-mblb-b.wav"])
def test_a_file_that_differs_from_the_publishers_or_is_missing_is_named(corpus, tmp_path, name):
    if name.endswith(".wav"):
        soundfile.write(corpus / name, np.arange(8000, dtype="<i2"), 16000)
    else:
        (corpus / name).write_text("GO G OW\n")
    with pytest.raises(ValueError, match=f"{name}: not the file that the publisher has"):
        prepare(corpus, tmp_path)
    (corpus / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: no such file; --corpus must be"):
        prepare(corpus, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_recording_with_another_header_is_the_same_recording(corpus, tmp_path):
    name = corpus / "wav/an4_clstk/fash/an251-fash-b.wav"
    soundfile.write(name, soundfile.read(name, dtype="int16")[0], 16000, format="WAVEX")
    prepare(corpus, tmp_path)


def test_a_transcript_of_another_recording_is_named_with_its_line(corpus):
    wrong = ETC["an4_train.transcription"].replace("cen1-mblb", "cen9-mblb")
    (corpus / "etc/an4_train.transcription").write_text(wrong)
    with pytest.raises(ValueError, match=r"an4_train.transcription:2: expected `WORDS \(cen1-mblb-b\)`, found"):
        an4.read_split(corpus, "train")


def pack(corpus: Path, archive: Path, *more: tarfile.TarInfo) -> str:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(corpus, corpus.name)
        for member in more:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return archive.as_uri()


def test_a_fetched_corpus_is_fetched_once_and_can_be_moved_with_its_data_directories(corpus, tmp_path):
    url = pack(corpus, tmp_path / "a.tar.gz")
    fetched = an4.fetch(url, tmp_path / "out" / "corpus")
    assert list((tmp_path / "out" / "corpus").iterdir()) == [fetched]
    (tmp_path / "a.tar.gz").unlink()
    assert an4.fetch(url, tmp_path / "out" / "corpus") == fetched

    prepare(fetched, tmp_path)
    (tmp_path / "out").rename(tmp_path / "moved")
    [utterance] = read_data_dir(tmp_path / "moved" / "data" / "test")
    assert utterance.audio.resolve().is_relative_to(tmp_path / "moved" / "corpus")


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="none.tar.gz: cannot be fetched .* give the folder .* as --corpus"):
        an4.fetch((tmp_path / "none.tar.gz").as_uri(), tmp_path / "fetched")
    assert list((tmp_path / "fetched").iterdir()) == []


def test_an_archive_whose_member_would_land_outside_is_refused(corpus, tmp_path):
    evil = tarfile.TarInfo("../../evil")
    evil.size = 4
    with pytest.raises(ValueError, match="not the archive that was expected .*evil.* outside"):
        an4.fetch(pack(corpus, tmp_path / "a.tar.gz", evil), tmp_path / "fetched")
    assert list(tmp_path.rglob("evil")) == [] and list((tmp_path / "fetched").iterdir()) == []


def test_a_truncated_or_foreign_archive_is_removed_and_nothing_is_unpacked(corpus, tmp_path):
    url = pack(corpus, tmp_path / "a.tar.gz")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    for content in (whole[:len(whole) // 2], b"<html>", b""):
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(ValueError, match="not the archive that was expected"):
            an4.fetch(url, tmp_path / "fetched")
        assert list((tmp_path / "fetched").iterdir()) == []
    foreign = pack(corpus.rename(tmp_path / "other"), tmp_path / "a.tar.gz")
    with pytest.raises(ValueError, match="not the archive that was expected"):
        an4.fetch(foreign, tmp_path / "fetched")


def test_the_pinned_checksums_cover_the_official_split():
    names = [line.split()[1] for line in Path(an4.__file__).with_suffix(".sha256").read_text().splitlines()]
    assert sum(name.startswith("wav/an4_clstk/") for name in names) == 948
    assert sum(name.startswith("wav/an4test_clstk/") for name in names) == 130
    assert sorted(name for name in names if name.startswith("etc/")) == sorted(f"etc/{name}" for name in ETC)


def test_a_split_that_leaves_nobody_to_train_on_is_refused():
    with pytest.raises(ValueError, match="dev_speakers_in 1 must be at least 2"):
        CorpusConfig(dev_speakers_in=1)
