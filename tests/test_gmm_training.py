import logging
import re

import numpy as np
import pytest
import torch

from decant.feat.cepstra import GmmFeatures
from decant.feat.front_end import mixture_frames
from decant.hmm.alignment import align
from decant.hmm.gmm import QuadraticForm
from decant.hmm.gmm_training import MonophoneConfig, Part, TriphoneConfig, gather, passes_of, train_gmm, untrained
from decant.hmm.state_tying import monophone_tree
from decant.hmm.topology import HmmConfig, TransitionModel, state_graph
from decant.lang.lexicon import make_lexicon


def train(lexicon, features, words, config, speakers=None, mllt=(), fmllr=()):
    """Trains on arrays of features [T, D] as they are, in one part: (system, its last Gathered, the last likelihood a
    frame)."""
    names = [f"{number:02d}" for number in range(len(features))]
    dims = features[0].shape[1]
    part = Part({name: x.numpy() for name, x in zip(names, features, strict=True)},
                dict(zip(names, words, strict=True)),
                dict(zip(names, speakers or ["one"] * len(names), strict=True)))
    model = TransitionModel(monophone_tree(lexicon.phones), HmmConfig())
    found = []

    def all_at_once(task, system):
        before = found[-1] if found else None
        found.append(gather(task, system, part, lexicon, before.labels if before else {},
                            before.speakers if before else {}))
        return found[-1].sums

    start = untrained("small", GmmFeatures(dims, np.eye(dims, dtype=np.float32)), model)
    system = train_gmm(start, config, passes_of(config, mllt, fmllr, True, "", ""), all_at_once)
    *_, num_frames = found[-1].sums["usable"].tolist()
    return system, found[-1], float(found[-1].sums["log_likelihood"]) / num_frames


def test_a_flat_start_finds_the_phones_borders():
    """Utterances of noise around a level for each phone: training has to find where each begins, from words alone."""
    lexicon = make_lexicon([("A", ("x",)), ("B", ("y", "x")), ("C", ("y",))])
    level = {"SIL": 0.0, "x": 5.0, "y": -5.0}
    generator = np.random.default_rng(0)
    features, truth, transcripts = [], [], []
    for words in [["A", "B"], ["B"], ["A", "C"], ["C", "C", "A"], ["B", "A"]] * 4:
        phones = ["SIL", *(phone for word in words for phone in lexicon.pronunciations[word][0]), "SIL"]
        durations = generator.integers(8, 20, len(phones))
        truth.append([phone for phone, n in zip(phones, durations, strict=True) for _ in range(n)])
        levels = np.array([level[phone] for phone in truth[-1]])
        features.append(torch.from_numpy(levels[:, None] + generator.normal(size=(len(levels), 4))).float())
        transcripts.append(words)
    config = MonophoneConfig(num_iterations=12, last_split_iteration=6, num_gaussians=30)
    trained, *_ = train(lexicon, features, transcripts, config)
    graphs = [state_graph(words, lexicon, trained.transitions) for words in transcripts]
    phone_of = {pdf: phone for phone in lexicon.phones for pdf in trained.transitions.pdfs(("SIL", phone, "SIL"))}
    paths = align(graphs, features, QuadraticForm(trained.gmm).log_likelihoods)
    right = [phone_of[pdf] == phone for path, phones in zip(paths, truth, strict=True)
             for pdf, phone in zip(path.pdfs, phones, strict=True)]
    assert np.mean(right) > 0.97
    assert int(trained.gmm.num_gaussians.sum()) == 30


def test_mllt_turns_the_features_with_the_means():
    """Two states whose frames have one full covariance: the rounds of MLLT raise the likelihood, as the transform's
    volume counts it."""
    generator = torch.Generator().manual_seed(0)
    lexicon = make_lexicon([("A", ("x",))])
    features = []
    for _ in range(20):
        noise = torch.randn(60, 2, generator=generator) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]])
        features.append(noise + torch.tensor([[0.0, 0.0]] * 20 + [[6.0, -6.0]] * 20 + [[0.0, 0.0]] * 20))
    found = {}
    for rounds in ((), (2, 4)):
        config = MonophoneConfig(num_iterations=6, realign_iterations=(1, 5), last_split_iteration=1, num_gaussians=1)
        trained, _, last = train(lexicon, features, [["A"]] * 20, config, mllt=rounds)
        transform = torch.from_numpy(trained.features.transform)
        found[rounds] = last + float(torch.linalg.slogdet(transform)[1])
    assert found[2, 4] > found[()] + 0.3
    assert not torch.equal(transform, torch.eye(2))


def test_features_that_never_vary_give_finite_mixtures_and_those_without_bounds_an_error():
    lexicon = make_lexicon([("A", ("x",))])
    config = MonophoneConfig(num_iterations=2, realign_iterations=(1,), last_split_iteration=1, num_gaussians=1)
    trained, last, _ = train(lexicon, [torch.ones(60, 2)] * 2, [["A"]] * 2, config)
    assert all(x.isfinite().all() for x in (trained.gmm.means, trained.gmm.variances)) and len(last.labels) == 2
    wild = [torch.ones(60, 2) * torch.tensor([1e20, -1e20]).repeat(30)[:, None]] * 2
    with pytest.raises(FloatingPointError, match="round 0: the log-likelihood is (nan|-?inf)"):
        train(lexicon, wild, [["A"]] * 2, config)


def test_transforms_of_several_rounds_are_one_after_another():
    """After two rounds of MLLT, or of fMLLR, the features as given through what was returned are what the mixtures
    were trained on: the likelihood is that of the last round."""
    generator = torch.Generator().manual_seed(0)
    lexicon = make_lexicon([("A", ("x",))])
    speakers, features = ["one", "two"] * 10, []
    for speaker in speakers:
        noise = torch.randn(120, 2, generator=generator) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]])
        spoken = torch.tensor([[0.0, 0.0]] * 20 + [[3.0, -3.0]] * 25 + [[8.0, 1.0]] * 25 + [[-3.0, 5.0]] * 30
                              + [[0.0, 0.0]] * 20)
        features.append((noise + spoken) * (1.5 if speaker == "two" else 1.0) + (speaker == "two"))
    config = MonophoneConfig(num_iterations=4, realign_iterations=(), last_split_iteration=1, num_gaussians=1)
    for rounds in ({"mllt": (2, 4)}, {"fmllr": (2, 4)}):
        trained, end, last = train(lexicon, features, [["A"]] * 20, config, speakers, **rounds)
        assert not np.array_equal(trained.features.transform, np.eye(2)) or len(end.speakers) == 2
        seen = [mixture_frames(x.numpy(), trained.features, end.speakers.get(speaker))
                for speaker, x in zip(speakers, features, strict=True)]
        scores = QuadraticForm(trained.gmm).log_likelihoods(torch.cat(seen))
        labels = np.concatenate([end.labels[name] for name in sorted(end.labels)])
        found = scores[torch.arange(len(scores)), torch.from_numpy(labels)].mean()
        assert float(found) == pytest.approx(last, abs=0.05)  # one step of expectation and maximisation later


def test_an_utterance_that_is_too_short_takes_no_part_and_is_counted(caplog):
    lexicon = make_lexicon([("A", ("x",))])
    config = MonophoneConfig(num_iterations=1, realign_iterations=(1,), last_split_iteration=1, num_gaussians=1)
    features = [torch.ones(60, 2), torch.ones(2, 2)]
    with caplog.at_level(logging.INFO):
        _, last, _ = train(lexicon, features, [["A"]] * 2, config)
    assert set(last.labels) == {"00"} and re.search("round 1: .* 1 of 2 utterances", caplog.text)
    with pytest.raises(ValueError, match="no training utterance has as many frames as its transcript has states"):
        train(lexicon, features[1:], [["A"]], config)


def test_each_system_has_its_number_of_utterances_and_the_last_may_be_quick():
    config = TriphoneConfig(lda_dim=40, speaker_adaptation=True, utterances=(5, 10, 0), quick=True)
    assert config.systems == ("triphone", "triphone_lda", "triphone_sat")
    assert config.of_system("triphone") == (config, 5)
    quick, count = config.of_system("triphone_sat")
    assert (quick.num_iterations, quick.realign_iterations, count) == (20, (10, 15), 0)
    with pytest.raises(ValueError, match=r"utterances is \(5, 10\); it has to have a number, 0 or more, for each of"):
        TriphoneConfig(utterances=(5, 10))
