import numpy as np
import pytest
import torch

from decant.feat.fmllr import affine
from decant.hmm.alignment import align
from decant.hmm.gmm import QuadraticForm
from decant.hmm.gmm_training import MonophoneConfig, flat_start, train_gmm
from decant.hmm.state_tying import monophone_tree
from decant.hmm.topology import HmmConfig, TransitionModel, state_graph
from decant.lang.lexicon import make_lexicon


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
    model = TransitionModel(monophone_tree(lexicon.phones), HmmConfig())
    graphs = [state_graph(words, lexicon, model) for words in transcripts]
    trained = train_gmm(features, graphs, model, flat_start(graphs, features), config, report=lambda line: None)
    phone_of = {pdf: phone for phone in lexicon.phones for pdf in trained.transitions.pdfs(("SIL", phone, "SIL"))}
    paths = align([graph.reweighted(trained.transitions) for graph in graphs], features,
                  QuadraticForm(trained.gmm).log_likelihoods)
    right = [phone_of[pdf] == phone for path, phones in zip(paths, truth, strict=True)
             for pdf, phone in zip(path.pdfs, phones, strict=True)]
    assert np.mean(right) > 0.97
    assert int(trained.gmm.num_gaussians.sum()) == 30


def test_mllt_turns_the_features_with_the_means():
    """Two states whose frames have one full covariance: the rounds of MLLT raise the likelihood, as the transform's
    volume counts it."""
    generator = torch.Generator().manual_seed(0)
    lexicon = make_lexicon([("A", ("x",))])
    model = TransitionModel(monophone_tree(lexicon.phones), HmmConfig())
    graphs, features = [state_graph(["A"], lexicon, model)] * 20, []
    for _ in graphs:
        noise = torch.randn(60, 2, generator=generator) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]])
        features.append(noise + torch.tensor([[0.0, 0.0]] * 20 + [[6.0, -6.0]] * 20 + [[0.0, 0.0]] * 20))
    found = {}
    for rounds in ((), (2, 4)):
        said = []
        config = MonophoneConfig(num_iterations=6, realign_iterations=(1, 5), last_split_iteration=1, num_gaussians=1)
        transform = train_gmm(features, graphs, model, flat_start(graphs, features), config, report=said.append,
                              mllt_iterations=rounds).transform
        last = float(said[-1].split("frame ")[1].split(",")[0])
        found[rounds] = last + float(torch.linalg.slogdet(transform)[1])
    assert found[2, 4] > found[()] + 0.3
    assert not torch.equal(transform, torch.eye(2))


def test_features_that_never_vary_give_finite_mixtures_and_those_without_bounds_an_error():
    lexicon = make_lexicon([("A", ("x",))])
    model = TransitionModel(monophone_tree(lexicon.phones), HmmConfig())
    config = MonophoneConfig(num_iterations=2, realign_iterations=(1,), last_split_iteration=1, num_gaussians=1)
    graphs, features = [state_graph(["A"], lexicon, model)] * 2, [torch.ones(60, 2)] * 2
    trained = train_gmm(features, graphs, model, flat_start(graphs, features), config, report=lambda line: None)
    assert all(x.isfinite().all() for x in (trained.gmm.means, trained.gmm.variances)) and not trained.num_unusable
    wild = [torch.ones(60, 2) * torch.tensor([1e20, -1e20]).repeat(30)[:, None]] * 2
    with pytest.raises(FloatingPointError, match="round 0: the log-likelihood is (nan|-?inf)"):
        train_gmm(wild, graphs, model, flat_start(graphs, wild), config, report=lambda line: None)


def test_transforms_of_several_rounds_are_one_after_another():
    """After two rounds of MLLT, or of fMLLR, the features as given through what was returned are what the mixtures
    were trained on: the likelihood is that of the last round."""
    generator = torch.Generator().manual_seed(0)
    lexicon = make_lexicon([("A", ("x",))])
    model = TransitionModel(monophone_tree(lexicon.phones), HmmConfig())
    graphs, speakers, features = [state_graph(["A"], lexicon, model)] * 20, ["one", "two"] * 10, []
    for speaker in speakers:
        noise = torch.randn(120, 2, generator=generator) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]])
        spoken = torch.tensor([[0.0, 0.0]] * 20 + [[3.0, -3.0]] * 25 + [[8.0, 1.0]] * 25 + [[-3.0, 5.0]] * 30
                              + [[0.0, 0.0]] * 20)
        features.append((noise + spoken) * (1.5 if speaker == "two" else 1.0) + (speaker == "two"))
    labels, said = flat_start(graphs, features), []
    config = MonophoneConfig(num_iterations=4, realign_iterations=(), last_split_iteration=1, num_gaussians=1)
    for rounds in ({"mllt_iterations": (2, 4)}, {"fmllr_iterations": (2, 4), "speakers": speakers}):
        trained = train_gmm(features, graphs, model, labels, config, report=said.append, **rounds)
        seen = [affine(trained.speakers[speaker], x) if trained.speakers else x
                for speaker, x in zip(speakers, (x @ trained.transform.T for x in features), strict=True)]
        scores = QuadraticForm(trained.gmm).log_likelihoods(torch.cat(seen))
        found = scores[torch.arange(len(scores)), torch.from_numpy(np.concatenate(labels))].mean()
        last = float(said[-1].split("frame ")[1].split(",")[0])
        assert float(found) == pytest.approx(last, abs=0.05)  # one step of expectation and maximisation later
