import numpy as np
import torch

from decant.distill import mixing
from decant.distill.mixing import Mixture, pass_of
from decant.nnet.frame_store import pack


def test_the_first_pass_has_every_frame_by_itself():
    store = pack([("a", np.array([[0.0], [1], [2]]), np.zeros(3))])
    index = torch.arange(3)
    assert torch.equal(Mixture(3, 0).windows(store, index, range(-1, 2)), store.windows(index, range(-1, 2)))


def test_a_mixture_has_both_windows_in_their_shares():
    store = pack([("a", np.array([[0.0], [8.0]]), np.zeros(2))])
    mixed = Mixture(2, 1)
    mixed.partners = lambda index: (torch.tensor([1]), torch.tensor([0.75]))
    window = mixed.windows(store, torch.tensor([0]), range(2))[0, :, 0]
    assert window.tolist() == [0.75 * 0 + 0.25 * 8, 0.75 * 8 + 0.25 * 8]


def test_every_pass_has_partners_and_shares_of_its_own_and_always_the_same():
    index = torch.arange(1000)
    (first, weight), (again, weight_again), (second, _) = (Mixture(1000, n).partners(index) for n in (1, 1, 2))
    assert torch.equal(first, again) and torch.equal(weight, weight_again)
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == list(range(1000))
    assert 0.45 < float(weight.mean()) < 0.55 and float(weight.min()) >= 0


def test_partners_and_shares_are_torchs_random_permutation_and_numbers_of_the_pass():
    generator = torch.Generator().manual_seed(mixing.SEED + 3)
    expected = torch.randperm(1000, generator=generator), torch.rand(1000, generator=generator)
    for found, x in zip(Mixture(1000, 3).partners(torch.arange(1000)), expected, strict=True):
        assert torch.equal(found, x)


def test_of_more_frames_than_a_pool_partners_are_in_the_frames_own_block_whatever_is_asked_for_first(monkeypatch):
    monkeypatch.setattr(mixing, "POOL", 20)
    monkeypatch.setattr(mixing, "BLOCK", 8)
    index = torch.arange(30)
    partner, weight = Mixture(30, 1, pool=8).partners(index)
    assert torch.equal(partner // 8, index // 8) and sorted(partner.tolist()) == list(range(30))
    assert len(set(weight.tolist())) == 30
    backwards, its_weight = Mixture(30, 1, pool=30).partners(index.flip(0))
    assert torch.equal(backwards.flip(0), partner) and torch.equal(its_weight.flip(0), weight)
    assert not torch.equal(Mixture(30, 2).partners(index)[0], partner)


def test_students_go_through_all_passes_in_turn_and_end_on_the_plain_frames():
    assert [pass_of(epoch, 7, 3) for epoch in range(7)] == [0, 2, 1, 0, 2, 1, 0]
    assert [pass_of(epoch, 2, 1) for epoch in range(2)] == [0, 0]
