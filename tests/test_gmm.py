import math

import numpy as np
import pytest
import torch

from decant.feat.cepstra import GmmFeatures
from decant.feat.fmllr import affine, identity
from decant.hmm.gmm import (
    DiagonalGmm,
    QuadraticForm,
    accumulate,
    first_mixtures,
    fmllr_transforms,
    load_gmm,
    log_sum_exp,
    reestimate,
    save_gmm,
    split,
    split_targets,
)
from decant.hmm.state_tying import monophone_tree, write_tree


def mixture() -> DiagonalGmm:
    """State 0: two Gaussians in one dimension, N(0, 1) and N(4, 4), equally heavy. State 1: N(1, 1) alone."""
    return DiagonalGmm(torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log(),
                       torch.tensor([[[0.0], [4.0]], [[1.0], [0.0]]]), torch.tensor([[[1.0], [4.0]], [[1.0], [1.0]]]))


def test_log_likelihoods_are_those_of_the_density():
    x = 1.0
    normal = [math.exp(-(x - mean) ** 2 / (2 * variance)) / math.sqrt(2 * math.pi * variance)
              for mean, variance in ((0, 1), (4, 4), (1, 1))]
    expected = [math.log(0.5 * normal[0] + 0.5 * normal[1]), math.log(normal[2])]
    [found] = QuadraticForm(mixture()).log_likelihoods(torch.tensor([[x]])).tolist()
    assert found == pytest.approx(expected, abs=1e-5)


def test_sums_of_exponentials_are_exact_however_far_apart():
    scores = torch.tensor([[0.0, -0.5, -60.0], [1e4, 1e4 - 95.0, -torch.inf], [-300.0, -390.0, -1e30]])
    torch.testing.assert_close(log_sum_exp(scores, dim=1), scores.logsumexp(dim=1, keepdim=True), rtol=0, atol=0)


def test_one_gaussian_takes_the_mean_and_variance_of_its_frames():
    gmm = DiagonalGmm(torch.zeros(1, 1), torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    frames = torch.tensor([[1.0, 0.0], [3.0, 0.0]]).repeat(10, 1)
    moments, _ = accumulate(gmm, frames, torch.zeros(20, dtype=torch.int64))
    new = reestimate(gmm, moments, variance_floor=0.01)
    assert new.means[0, 0].tolist() == pytest.approx([2.0, 0.0])
    assert new.variances[0, 0].tolist() == pytest.approx([1.0, 0.01])


def test_no_step_of_expectation_maximisation_lowers_the_likelihood():
    generator = torch.Generator().manual_seed(0)
    frames = torch.cat([torch.randn(200, 3, generator=generator) - 2, torch.randn(200, 3, generator=generator) * 2])
    pdfs = torch.zeros(400, dtype=torch.int64)
    gmm = split(DiagonalGmm(torch.zeros(1, 1), frames.mean(0).expand(1, 1, -1), frames.var(0).expand(1, 1, -1)),
                np.array([4]))
    likelihoods = []
    for _ in range(10):
        moments, likelihood = accumulate(gmm, frames, pdfs)
        gmm = reestimate(gmm, moments, 0.01)
        likelihoods.append(likelihood / len(frames))
    assert all(b >= a - 1e-4 for a, b in zip(likelihoods, likelihoods[1:], strict=False))
    assert likelihoods[-1] > likelihoods[0] + 0.1


def test_moments_of_parts_add_up_to_those_of_all_frames():
    """Of state 0's two Gaussians and state 1's one: frames by posterior, sums of squares, sums."""
    frames, pdfs = torch.tensor([[0.0], [4.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1, 1, 1])
    moments, likelihood = accumulate(mixture(), frames, pdfs)
    assert moments.shape == (3, 3) and moments.dtype == torch.float64
    assert moments[2].tolist() == [3.0, 14.0, 6.0]
    assert moments[:2].sum(dim=0).tolist() == pytest.approx([2.0, 16.0, 4.0])
    parts = [accumulate(mixture(), frames[part], pdfs[part]) for part in (slice(0, 3), slice(3, 5))]
    torch.testing.assert_close(parts[0][0] + parts[1][0], moments)
    assert parts[0][1] + parts[1][1] == pytest.approx(likelihood)


def test_a_state_without_frames_begins_with_the_gaussian_of_all_frames():
    frames = torch.tensor([[1.0], [3.0]]).repeat(10, 1)
    untrained = DiagonalGmm(torch.zeros(2, 1), torch.zeros(2, 1, 1), torch.ones(2, 1, 1))
    moments, _ = accumulate(untrained, frames, torch.zeros(20, dtype=torch.int64))
    first = first_mixtures(moments, 0.01)
    assert first.means.flatten().tolist() == [2.0, 2.0] and first.variances.flatten().tolist() == [1.0, 1.0]


def test_a_split_keeps_the_weights_sum_and_the_mean():
    gmm = split(mixture(), np.array([4, 1]))
    assert gmm.num_gaussians.tolist() == [4, 1]
    weights = gmm.log_weights.exp()
    assert weights.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert float((weights[0] * gmm.means[0, :, 0]).sum()) == pytest.approx(2.0)


def test_states_share_gaussians_by_occupancy_and_none_is_fed_by_fewer_than_twenty_frames():
    one = np.ones(2, np.int64)
    assert split_targets(np.array([10_000, 10_000]), one, 6, 0.25).tolist() == [3, 3]
    assert split_targets(np.array([160_000, 10_000]), one, 6, 0.25).tolist() == [4, 2]  # 16 ** 0.25 = 2
    assert split_targets(np.array([10_000, 10_000]), np.array([1, 4]), 6, 0.25).tolist() == [2, 4]
    assert split_targets(np.array([100_000, 45, 0]), np.ones(3, np.int64), 100, 0.25).tolist() == [97, 2, 1]


def test_a_gmm_survives_a_file(tmp_path):
    write_tree(tmp_path / "tree.json", monophone_tree(("SIL",)))
    transform = np.arange(6, dtype=np.float32).reshape(2, 3)
    for wanted in (GmmFeatures(13), GmmFeatures(1, transform)):
        save_gmm(tmp_path, mixture(), wanted, monophone_tree(("SIL",)))
        gmm, features = load_gmm(tmp_path)
        assert features.num_cepstra == wanted.num_cepstra and np.array_equal(features.transform, wanted.transform)
    assert features.context == 1
    assert all(torch.equal(a, b) for a, b in zip(vars(gmm).values(), vars(mixture()).values(), strict=True))


def test_a_tree_of_another_phone_set_is_refused(tmp_path):
    write_tree(tmp_path / "tree.json", monophone_tree(("SIL", "x")))
    save_gmm(tmp_path, mixture(), GmmFeatures(13), monophone_tree(("SIL",)))
    with pytest.raises(ValueError, match="trained with another tree than tree.json"):
        load_gmm(tmp_path)


def test_each_speaker_s_transform_brings_its_features_to_the_mixtures():
    """Speakers who shift and stretch the same mixtures' frames; one says too little between silences, one nothing."""
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[[0.0, 0.0]], [[6.0, -3.0]], [[-5.0, 4.0]], [[50.0, 50.0]]])  # the last one is silence
    gmm = DiagonalGmm(torch.zeros(4, 1), means, torch.ones(4, 1, 2))
    spoken = {"far": ([[0.5, 0.0], [0.2, 1.5]], [3.0, -1.0]), "near": ([[1.1, 0.0], [0.0, 0.9]], [0.0, 0.5]),
              "short": ([[1.0, 0.0], [0.0, 1.0]], [2.0, 2.0]), "silent": ([[1.0, 0.0], [0.0, 1.0]], [2.0, 2.0])}
    features, labels, speakers, clean = [], [], [], []
    for i, (speaker, (turn, shift)) in enumerate(sorted(spoken.items()) * 2):
        pdfs = torch.randint(3, (100 if speaker == "short" else 2000,), generator=generator)
        clean.append(gmm.means[pdfs, 0] + torch.randn(len(pdfs), 2, generator=generator))
        silence = torch.zeros(2000, 2)  # far from its mixture: it must not count
        features.append(torch.cat([clean[i] @ torch.tensor(turn).T + torch.tensor(shift), silence]))
        labels.append(None if speaker == "silent" else np.append(pdfs.numpy(), np.full(2000, 3)))
        speakers.append(speaker)
    found = fmllr_transforms(gmm, features, labels, speakers, np.array([3]))
    assert found.keys() == spoken.keys()
    for frames, speaker, before in zip(features, speakers, clean, strict=True):
        if speaker in ("far", "near"):
            assert (affine(found[speaker], frames[:len(before)]) - before).abs().mean() < 0.1
        else:
            assert torch.equal(found[speaker], identity(2))
    one_by_one = fmllr_transforms(gmm, features, labels, speakers, np.array([3]), jobs=2, max_frames=1)
    assert all(torch.allclose(found[speaker], one_by_one[speaker], atol=1e-4) for speaker in spoken)


@pytest.mark.parametrize("spoil", [
    lambda x: torch.stack([x[:, 0], x[:, 1], 0 * x[:, 0]], dim=1),
    lambda x: torch.stack([x[:, 0], x[:, 1], 0 * x[:, 0] + 5.3], dim=1),
    lambda x: torch.stack([x[:, 0], x[:, 1], x[:, 1]], dim=1),
    lambda x: torch.stack([x[:, 0], x[:, 1], 2.3 * x[:, 0] - 0.7 * x[:, 1] + 1.1], dim=1),
    lambda x: x[:1].expand(600, 3),
    lambda x: x[:3].repeat(200, 1),
], ids=["zero", "constant", "equal", "combination", "one frame", "three frames"])
def test_a_speaker_whose_frames_lie_in_a_plane_is_named(spoil):
    """In rounded numbers most of these have an inverse, from which came NaN or a transform without sense."""
    gmm = DiagonalGmm(torch.zeros(1, 1), torch.zeros(1, 1, 3), torch.ones(1, 1, 3))
    frames = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    assert fmllr_transforms(gmm, [frames], [np.zeros(600, np.int64)], ["mute"], np.array([]))["mute"].isfinite().all()
    with pytest.raises(ValueError, match="speaker mute: the frames of speech lie in a plane"):
        fmllr_transforms(gmm, [spoil(frames)], [np.zeros(600, np.int64)], ["mute"], np.array([]))


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data.replace(b"num_cepstra", b"num_cepstrb")])
def test_damaged_mixtures_are_named(tmp_path, damage):
    tree = monophone_tree(("SIL", "x"))
    write_tree(tmp_path / "tree.json", tree)
    save_gmm(tmp_path, mixture(), GmmFeatures(1), tree)
    file = tmp_path / "gmm.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"gmm.safetensors: damaged, or of an older decant"):
        load_gmm(tmp_path)
