"""Shards, and training over them: the same bits whoever does which shard, and in whatever order."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tomli_w
import torch

from decant.feat.archive import read_matrices, write_matrices
from decant.feat.cepstra import GmmFeatures
from decant.feat.fbank import FbankConfig, cmvn_statistics
from decant.hmm.gmm_training import MonophoneConfig, TriphoneConfig, passes_of, train_gmm, untrained
from decant.hmm.shard_passes import ShardPasses, do_shard
from decant.hmm.shards import by_shard, read_shard, subset, write_shards
from decant.hmm.state_tying import StateTyingConfig, monophone_tree
from decant.hmm.tied_training import train_tied
from decant.hmm.topology import HmmConfig, TransitionModel
from decant.lang.lexicon import make_lexicon, read_lexicon, write_lexicon
from decant.parallel import Workers

SPEAKERS, UTTERANCES = "abcdefghij", 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A feature folder of ten speakers with three utterances each, `words` and a lexicon."""
    folder = tmp_path_factory.mktemp("corpus")
    lexicon = make_lexicon([("A", ("x",)), ("B", ("y", "x")), ("C", ("y",))])
    write_lexicon(lexicon, folder / "lexicon.txt")
    generator = np.random.default_rng(0)
    level = {phone: generator.normal(0, 5, 6) for phone in ("SIL", "x", "y")}
    frames, words, speaker_of = {}, {}, {}
    for speaker in SPEAKERS:
        for number in range(UTTERANCES):
            name = f"{speaker}-{number}"
            words[name] = [("A", "B", "C")[i] for i in generator.integers(0, 3, 4)]
            phones = ["SIL", *(phone for word in words[name] for phone in lexicon.pronunciations[word][0]), "SIL"]
            means = np.repeat([level[phone] for phone in phones], generator.integers(15, 30, len(phones)), axis=0)
            frames[name] = (means + generator.normal(size=means.shape)).astype(np.float32)
            speaker_of[name] = speaker
    fbank = folder / "fbank"
    fbank.mkdir()
    write_matrices(fbank / "feats", sorted(frames.items()))
    write_matrices(fbank / "cmvn", ((s, sum(cmvn_statistics(frames[f"{s}-{n}"]) for n in range(UTTERANCES)))
                                    for s in SPEAKERS))
    (fbank / "utt2spk").write_text("".join(f"{name} {name[0]}\n" for name in sorted(frames)))
    (fbank / "fbank.toml").write_text(tomli_w.dumps(vars(FbankConfig(num_bins=6))))
    return fbank, words, folder / "lexicon.txt"


def train_both(corpus, work, jobs):
    """A monophone system and one of LDA, MLLT and tied states: the bits of both, and the speakers' transforms of a
    third, adapted one."""
    fbank, words, lexicon_file = corpus
    lexicon = read_lexicon(lexicon_file)
    shards = write_shards(fbank, words, work / "shards")
    mono = MonophoneConfig(num_iterations=4, last_split_iteration=3, num_gaussians=20, realign_iterations=(1, 3))
    tied = TriphoneConfig(num_iterations=3, realign_iterations=(2,), last_split_iteration=2, num_gaussians=30,
                          lda_dim=5, speaker_adaptation=True, mllt_iterations=(1, 2), fmllr_iterations=(1,))
    start = untrained("monophone", GmmFeatures(4), TransitionModel(monophone_tree(lexicon.phones), HmmConfig()))
    with Workers(jobs) as workers:
        system = train_gmm(start, mono, passes_of(mono, (), (), True, "", ""),
                           ShardPasses(work / "monophone", shards, lexicon_file, workers))
        for name in ("triphone_lda", "triphone_sat"):
            passes = ShardPasses(work / name, shards, lexicon_file, workers)
            system, speakers = train_tied(name, system, lexicon, False, StateTyingConfig(num_leaves=14), tied, passes)
    return [*vars(system.gmm).values(), torch.from_numpy(system.features.transform),
            *(torch.from_numpy(x) for x in passes.speakers(speakers).values())]


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory):
    return train_both(corpus, tmp_path_factory.mktemp("one"), 1)


def same_bits(ours, theirs):
    return len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_shards_hold_whole_speakers_and_every_utterance_once():
    num_frames = {f"{speaker}-{n}": 10 for speaker in "abcdef" for n in range(4)}
    speaker_of = {name: name[0] for name in num_frames}
    shards = by_shard(num_frames, speaker_of, shard_frames=80)
    assert [{speaker_of[name] for name in shard} for shard in shards] == [{one} for one in "abcdef"]
    assert sorted(name for shard in shards for name in shard) == sorted(num_frames)
    large = by_shard({name: 1000 for name in num_frames}, speaker_of, shard_frames=8000)
    assert [len(shard) for shard in large] == [4] * 6  # an eighth of 24,000 frames is less than 8000
    assert by_shard({"a-1": 5}, {"a-1": "a"}) == [["a-1"]]


def test_a_subset_has_the_shortest_or_evenly_spaced_utterances():
    num_frames = {"a": 5, "b": 1, "c": 4, "d": 2, "e": 3, "f": 6}
    assert subset(num_frames, 3, shortest=True) == ["b", "d", "e"]
    assert subset(num_frames, 3, shortest=False) == ["a", "c", "e"]
    assert subset(num_frames, 0, shortest=True) == subset(num_frames, 9, shortest=False) == list("abcdef")


def test_a_shard_is_a_feature_folder_with_transcripts_that_moves_with_its_experiment(corpus, tmp_path):
    fbank, words, _ = corpus
    shutil.copytree(fbank, tmp_path / "one/fbank")
    write_shards(tmp_path / "one/fbank", words, tmp_path / "one/shards")
    (tmp_path / "one").rename(tmp_path / "other")
    shards = sorted((tmp_path / "other/shards").iterdir())
    assert len(shards) > 3
    found = {}
    for shard in shards:
        filterbanks, its_words = read_shard(shard)
        assert {name: list(spoken) for name, spoken in its_words.items()} == {name: words[name] for name in its_words}
        found |= dict(filterbanks.frames)
    originals = dict(read_matrices(fbank / "feats.scp"))
    assert found.keys() == originals.keys() and all(np.array_equal(found[name], originals[name]) for name in found)


@pytest.mark.parametrize("jobs", [2, 8])
def test_no_bit_depends_on_the_number_of_processes(corpus, expected, tmp_path, jobs):
    assert same_bits(train_both(corpus, tmp_path, jobs), expected)


def test_shards_done_by_name_in_any_order_are_taken_as_they_are(corpus, expected, tmp_path, monkeypatch):
    """A first run stops in its second pass; that pass's shards are then done by commands, the last one first."""
    def stop(folder, shard):
        if folder.name == "round_01":
            raise InterruptedError
        do_shard(folder, shard)

    monkeypatch.setattr("decant.hmm.shard_passes.do_shard", stop)
    with pytest.raises(InterruptedError):
        train_both(corpus, tmp_path, 1)
    times = {}
    for shard in sorted((tmp_path / "shards").iterdir(), reverse=True):
        subprocess.run([sys.executable, "-m", "decant.hmm.shard_passes", tmp_path / "monophone/round_01", shard],
                       check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        times[shard] = sums_of(shard, tmp_path).stat().st_mtime_ns

    def watch(folder, shard):
        do_shard(folder, shard)
        if folder == tmp_path / "monophone/round_01":
            assert sums_of(shard, tmp_path).stat().st_mtime_ns == times.pop(shard)  # not done again

    monkeypatch.setattr("decant.hmm.shard_passes.do_shard", watch)
    assert same_bits(train_both(corpus, tmp_path, 1), expected) and not times


def sums_of(shard, work):
    return work / "monophone/round_01/sums" / f"{shard.name}.safetensors"


def test_a_training_that_was_stopped_anywhere_goes_on_to_the_same_bits(corpus, expected, tmp_path, monkeypatch):
    """It stops before every eleventh shard that it comes to; none that was finished is done again."""
    attempts, finished = 0, []

    def stop_at_times(folder, shard):
        nonlocal attempts
        if (folder / "sums" / f"{shard.name}.safetensors").exists():
            return
        attempts += 1
        if attempts % 11 == 0:
            raise InterruptedError
        do_shard(folder, shard)
        finished.append((folder, shard))

    monkeypatch.setattr("decant.hmm.shard_passes.do_shard", stop_at_times)
    found, stops = None, 0
    while found is None:
        try:
            found = train_both(corpus, tmp_path, 1)
        except InterruptedError:
            stops += 1
    assert stops > 3 and len(finished) == len(set(finished))
    assert same_bits(found, expected)
