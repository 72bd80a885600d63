"""The front end on arrays: samples to words without stages and their folders; what models see of filterbanks."""

import json

import numpy as np
import pytest
import torch

from decant.distill.scorer import MeanOfNetworks, score
from decant.experiment import Experiment
from decant.feat.audio import read_audio
from decant.feat.cepstra import GmmFeatures, cepstra
from decant.feat.data_dir import read_data_dir
from decant.feat.fbank import cmvn_statistics, fbank, normalise
from decant.feat.front_end import Filterbanks, mixture_frames, read_transforms
from decant.hmm.gmm import load_gmm
from decant.nnet.acoustic_model import load_model
from decant.search.beam_search import SearchConfig, decode, read_graph


def recognised(details):
    """{utterance: its hypothesis} of score/details/*.txt: what stands in its `hyp` rows, but for gaps."""
    rows = {}
    for line in details.read_text().splitlines():
        utterance, row, *cells = line.split()
        rows.setdefault(utterance, {})[row] = cells
    return {utterance: tuple(word for word, kind in zip(row["hyp"], row["op"], strict=True) if kind != "D")
            for utterance, row in rows.items()}


def test_samples_become_the_words_that_stage_13_found(left_alone):
    """Of the first utterances of dev by the baseline, which sees speaker-adapted features."""
    experiment = Experiment(left_alone)
    expected = recognised(left_alone / "score/details/baseline_1_dev.txt")
    setting = next(row for row in json.loads((left_alone / "score/rows/baseline_1.json").read_text())
                   if row["split"] == "dev")
    model, config = load_model(experiment.member(1))
    _, seen = load_gmm(experiment.mixtures[-1])
    transforms = read_transforms(experiment.alignment("dev") / "fmllr")
    graph = read_graph(experiment.graph(experiment.mixtures[-1]), setting["word_insertion_penalty"])
    utterances = read_data_dir(experiment.data("dev"))
    samples = {utterance.id: read_audio(utterance.audio, config.sample_rate) for utterance in utterances}
    speaker_of = {utterance.id: utterance.speaker for utterance in utterances}

    # From here on arrays and models alone. A speaker's mean is that of all that he says, as in the stages.
    frames = {utterance: fbank(x, config).numpy() for utterance, x in samples.items()}
    statistics = {speaker: sum(cmvn_statistics(frames[utterance]) for utterance, one in speaker_of.items()
                               if one == speaker) for speaker in speaker_of.values()}
    adapted = dict(Filterbanks(frames, speaker_of, statistics, config.normalisation).for_mixtures(seen, transforms))
    network = MeanOfNetworks([model])
    found = {utterance: decode(graph, score(network, adapted[utterance].numpy()).log_likelihoods,
                               setting["lm_weight"], SearchConfig())[0] for utterance in list(samples)[:4]}
    assert len(found) >= 3 and any(found.values())
    assert found == {utterance: expected[utterance] for utterance in found}


def filterbanks(normalisation: str = "speaker") -> Filterbanks:
    """Three utterances of random frames: two of the speaker s, one of t, who is louder."""
    generator = np.random.default_rng(0)
    frames = {name: generator.normal(mean, 2, (length, 6)).astype(np.float32)
              for name, mean, length in (("s-1", 5, 7), ("s-2", 8, 3), ("t-1", 20, 5))}
    statistics = {"s": cmvn_statistics(frames["s-1"]) + cmvn_statistics(frames["s-2"]),
                  "t": cmvn_statistics(frames["t-1"])}
    return Filterbanks(frames, {name: name[0] for name in frames}, statistics, normalisation)


def test_networks_see_a_speaker_s_frames_with_mean_0_and_variance_1():
    seen = dict(filterbanks().for_networks())
    for of_speaker in (np.concatenate([seen["s-1"], seen["s-2"]]), seen["t-1"]):
        np.testing.assert_allclose(of_speaker.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(of_speaker.std(axis=0), 1, atol=1e-5)
    assert abs(seen["s-1"].mean()) > 0.1  # not of each utterance


def test_networks_see_each_utterance_with_mean_0_and_variance_1_where_asked():
    for frames in dict(filterbanks("utterance").for_networks()).values():
        np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-5)


def test_networks_see_frames_as_computed_where_nothing_is_normalised():
    given = filterbanks("none")
    for utterance, frames in given.for_networks():
        np.testing.assert_array_equal(frames, given.frames[utterance])


def test_one_utterance_is_seen_by_the_statistics_of_all_that_its_speaker_says():
    given = filterbanks()
    alone = Filterbanks({"s-2": given.frames["s-2"]}, given.speaker_of, given.statistics, "speaker")
    [(_, frames)] = alone.for_networks()
    np.testing.assert_array_equal(frames, dict(given.for_networks())["s-2"])
    np.testing.assert_array_equal(frames, normalise(given.frames["s-2"], given.statistics["s"]))


def test_cepstra_have_mean_0_for_every_speaker_whatever_the_normalisation():
    given = filterbanks("utterance")
    static = dict(given.cepstra(4))
    raw = {utterance: cepstra(frames, 4) for utterance, frames in given.frames.items()}
    of_s = np.concatenate([raw["s-1"], raw["s-2"]]).mean(axis=0)
    np.testing.assert_allclose(static["s-2"], raw["s-2"] - of_s, atol=1e-5)
    np.testing.assert_allclose(static["t-1"].mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("wanted", [GmmFeatures(4), GmmFeatures(4, np.eye(5, 12, dtype=np.float32))])
def test_mixtures_see_each_speaker_s_own_transform(wanted):
    """[I 1] of s adds 1 to each feature, [2 I 0] of t doubles it; without transforms they are as before adaptation."""
    given = filterbanks()
    plain = dict(given.for_mixtures(wanted))
    dims = plain["s-1"].shape[1]
    assert plain["s-1"].shape == (7, 12 if wanted.transform is None else 5)
    np.testing.assert_array_equal(plain["t-1"], mixture_frames(dict(given.cepstra(4))["t-1"], wanted))
    eye = torch.eye(dims)
    adapted = dict(given.for_mixtures(wanted, {"s": torch.cat([eye, torch.ones(dims, 1)], dim=1),
                                               "t": torch.cat([2 * eye, torch.zeros(dims, 1)], dim=1)}))
    torch.testing.assert_close(adapted["s-2"], plain["s-2"] + 1)
    torch.testing.assert_close(adapted["t-1"], 2 * plain["t-1"])
