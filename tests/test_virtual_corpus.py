"""The corpus of tests/benchmarks/virtual_corpus.py, which names the same features many times."""

import numpy as np
import pytest
import soundfile
from benchmarks.virtual_corpus import stage_programs, write_virtual

from decant.feat.archive import read_matrices
from decant.feat.data_dir import Utterance, read_data_dir, write_data_dir
from decant.feat.fbank import FbankConfig, compute_fbank_dir, load_features


@pytest.fixture
def exp(tmp_path):
    """An experiment to stage 2 whose train is two utterances of ann, 0.5 s, and one of bob, 0.25 s."""
    random = np.random.default_rng(0)
    utterances = []
    for name, length in (("ann_1", 4000), ("ann_2", 4000), ("bob_1", 4000)):
        soundfile.write(tmp_path / f"{name}.wav", random.integers(-9999, 9999, length, dtype=np.int16), 16000)
        utterances.append(Utterance(name, name.partition("_")[0], tmp_path / f"{name}.wav", (name[:3].upper(),)))
    for split in ("train", "dev"):
        write_data_dir(tmp_path / "exp/data" / split, utterances)
        compute_fbank_dir(tmp_path / "exp/data" / split, tmp_path / "exp/fbank" / split, FbankConfig(), jobs=1)
    (tmp_path / "exp/lang").mkdir()
    return tmp_path / "exp"


def test_a_second_and_a_quarter_of_three_quarters_of_a_second_names_ann_twice_and_bob_once(exp, tmp_path):
    assert write_virtual(exp, tmp_path / "more", 1.25 / 3600) == pytest.approx(1.25 / 3600)
    utterances = read_data_dir(tmp_path / "more/data/train")
    assert [utterance.id for utterance in utterances] == [
        "v000000-ann_1", "v000000-ann_2", "v000000-bob_1", "v000001-ann_1", "v000001-ann_2"]
    assert [utterance.speaker for utterance in utterances] == [
        "v000000-ann", "v000000-ann", "v000000-bob", "v000001-ann", "v000001-ann"]
    assert [utterance.words for utterance in utterances] == [("ANN",)] * 2 + [("BOB",)] + [("ANN",)] * 2
    assert [utterance.id for utterance in read_data_dir(tmp_path / "more/data/dev")] == ["ann_1", "ann_2", "bob_1"]


def test_every_name_has_the_features_and_the_statistics_of_the_one_it_was_made_from(exp, tmp_path):
    write_virtual(exp, tmp_path / "more", 1.25 / 3600)
    before = dict(load_features(exp / "fbank/train"))
    found = dict(load_features(tmp_path / "more/fbank/train"))
    assert len(found) == 5
    assert all(np.array_equal(x, before[name.partition("-")[2]]) for name, x in found.items())
    statistics = dict(read_matrices(tmp_path / "more/fbank/train/cmvn.scp"))
    assert not list((tmp_path / "more/fbank/train").glob("*.ark"))
    assert statistics.keys() == {"v000000-ann", "v000000-bob", "v000001-ann"}


def test_the_programs_are_those_of_the_stages_lines():
    assert stage_programs(3, 5) == [
        (3, "monophone", "steps/train_monophone.py"), (4, "tied", "steps/train_triphone.py"),
        (5, "graph", "steps/make_graph.py")]
