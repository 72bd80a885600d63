from dataclasses import replace

import numpy as np
import pytest
import torch

from decant.distill.ensemble import ensemble_logits
from decant.distill.mixing import Mixture
from decant.distill.soft_targets import (
    DistillationConfig,
    LiveTargets,
    SoftTargetsConfig,
    finish_pass,
    made_from,
    num_shards,
    read_soft_targets,
    write_shard,
)
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig
from decant.nnet.frame_store import pack, read_frame_store, write_frame_store

CONFIG = SoftTargetsConfig(temperatures=(1.0, 5.0), num_states=3, shard_frames=4, precision="float32")
NUM_FRAMES, NUM_PDFS = 11, 6


@pytest.fixture
def teacher(tmp_path):
    sizes = AcousticModelConfig(left_context=1, right_context=1, hidden_layers=1, hidden_units=4)
    members = [AcousticModel(sizes, num_bins=2, num_pdfs=NUM_PDFS).initialize(seed) for seed in (1, 2)]
    for seed, model in enumerate(members):
        torch.nn.init.normal_(model.layers[-1].weight, generator=torch.Generator().manual_seed(seed))
    frames = np.random.default_rng(0).normal(size=(NUM_FRAMES, 2))
    write_frame_store(tmp_path / "store", pack([("a", frames, np.zeros(NUM_FRAMES, int))]))
    return members, read_frame_store(tmp_path / "store")


def write(directory, members, store, config=CONFIG, number=0):
    for shard in range(num_shards(len(store), config.shard_frames)):
        write_shard(directory, members, store, config, number, shard, batch_size=3)
    source = made_from(members, store, config)
    finish_pass(directory, number, source)
    return source


@pytest.mark.parametrize("kind", ["arithmetic", "geometric"])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_kept_states_have_the_ensembles_softened_probability_and_the_others_their_sum(teacher, tmp_path, kind,
                                                                                      temperature):
    members, store = teacher
    source = write(tmp_path, members, store, replace(CONFIG, teacher=kind))
    index = torch.tensor([10, 0, 4, 3, 7])  # of three shards
    states, probabilities = read_soft_targets(tmp_path, 0, temperature, source).batch(index)
    whole = (ensemble_logits(members, store.windows(index, range(-1, 2)), kind) / temperature).softmax(dim=1)
    torch.testing.assert_close(probabilities[:, :-1], whole.gather(1, states), rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(probabilities[:, -1], 1 - whole.gather(1, states).sum(dim=1), rtol=5e-3, atol=1e-5)
    assert states.tolist() == whole.topk(3).indices.tolist()


def test_a_teacher_that_answers_at_once_says_what_the_store_says_of_it(teacher, tmp_path):
    members, store = teacher
    source = write(tmp_path, members, store, number=1)
    index = torch.tensor([10, 0, 4])
    windows = Mixture(NUM_FRAMES, 1).windows(store, index, range(-1, 2))
    stored = read_soft_targets(tmp_path, 1, 5.0, source).batch(index)
    live = LiveTargets(members, CONFIG, 5.0).batch(index, windows)
    assert torch.equal(stored[0], live[0])
    torch.testing.assert_close(stored[1], live[1], rtol=2e-3, atol=1e-5)


def test_bfloat16_is_used_where_it_is_asked_for_and_says_nearly_the_same(teacher, tmp_path):
    members, store = teacher
    index, answers = torch.arange(NUM_FRAMES), {}
    for precision in ("float32", "bfloat16"):
        config = replace(CONFIG, num_states=NUM_PDFS, precision=precision)
        source = write(tmp_path / precision, members, store, config)
        states, probabilities = read_soft_targets(tmp_path / precision, 0, 1.0, source).batch(index)
        answers[precision] = torch.zeros(NUM_FRAMES, NUM_PDFS).scatter(1, states, probabilities)
    assert not torch.equal(*answers.values())
    torch.testing.assert_close(*answers.values(), rtol=0, atol=0.02)


def test_with_all_states_kept_nothing_is_left_for_others(teacher, tmp_path):
    members, store = teacher
    source = write(tmp_path, members, store, replace(CONFIG, num_states=20))
    states, probabilities = read_soft_targets(tmp_path, 0, 1.0, source).batch(torch.arange(NUM_FRAMES))
    assert states.shape == (NUM_FRAMES, NUM_PDFS) and probabilities[:, -1].tolist() == [0.0] * NUM_FRAMES


def test_a_record_has_four_bytes_a_state_and_four_a_temperature(teacher, tmp_path):
    members, store = teacher
    write(tmp_path, members, store)
    records = np.load(tmp_path / "pass_0" / "shard_0.npy", allow_pickle=False)
    assert records.dtype.itemsize == 4 * 3 + 4 * 2 and len(records) == 4


def test_a_later_pass_holds_the_teachers_answer_to_the_mixture_that_the_student_sees(teacher, tmp_path):
    members, store = teacher
    source = write(tmp_path, members, store, number=1)
    mixed, index = Mixture(NUM_FRAMES, 1), torch.arange(NUM_FRAMES)
    states, probabilities = read_soft_targets(tmp_path, 1, 1.0, source).batch(index)
    whole = ensemble_logits(members, mixed.windows(store, index, range(-1, 2)), CONFIG.teacher).softmax(dim=1)
    torch.testing.assert_close(probabilities[:, :-1], whole.gather(1, states), rtol=2e-3, atol=1e-5)


def test_a_pass_that_is_not_whole_is_refused_and_goes_on_at_the_next_shard(teacher, tmp_path):
    members, store = teacher
    write_shard(tmp_path, members, store, CONFIG, 0, 0)
    source = made_from(members, store, CONFIG)
    with pytest.raises(FileNotFoundError, match="pass.json: this pass's soft targets are not whole"):
        read_soft_targets(tmp_path, 0, 1.0, source)
    before = (tmp_path / "pass_0" / "shard_0.npy").stat().st_mtime_ns
    write(tmp_path, members, store)
    assert (tmp_path / "pass_0" / "shard_0.npy").stat().st_mtime_ns == before
    assert sum(map(len, read_soft_targets(tmp_path, 0, 1.0, source, check=True).shards)) == NUM_FRAMES


def test_targets_in_files_of_another_size_are_read_as_they_are(teacher, tmp_path):
    members, store = teacher
    write(tmp_path, members, store)
    index = torch.tensor([10, 0, 4, 3, 7])
    one = read_soft_targets(tmp_path, 0, 1.0, made_from(members, store, CONFIG))
    other = read_soft_targets(tmp_path, 0, 1.0, made_from(members, store, replace(CONFIG, shard_frames=7)))
    assert torch.equal(one.batch(index)[1], other.batch(index)[1])


def test_what_was_left_with_another_shard_frames_is_not_taken_for_a_shard_of_this_one(teacher, tmp_path):
    """Of 11 frames the second shard has 4, whether shards have 4 (from frame 4 on) or 7 (from frame 7 on)."""
    members, store = teacher
    sevens = replace(CONFIG, shard_frames=7)
    for shard in range(3):
        write_shard(tmp_path / "left", members, store, CONFIG, 0, shard)
    index = torch.arange(NUM_FRAMES)
    expected = read_soft_targets(tmp_path / "new", 0, 1.0, write(tmp_path / "new", members, store, sevens)).batch(index)
    found = read_soft_targets(tmp_path / "left", 0, 1.0, write(tmp_path / "left", members, store, sevens)).batch(index)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert {path.name for path in (tmp_path / "left/pass_0").iterdir()} == {"shard_0.npy", "shard_7.npy", "pass.json"}


def test_targets_of_something_else_are_refused_by_name(teacher, tmp_path):
    members, store = teacher
    write(tmp_path, members, store)
    other = replace(store, pdfs=store.pdfs + 1)
    short = pack([("a", store.frames[:9].numpy(), np.zeros(9, int))])
    for source, what in ((made_from(members[:1], store, CONFIG), "teacher"),
                            (made_from(members, store, replace(CONFIG, teacher="arithmetic")), "teacher"),
                            (made_from(members, other, CONFIG), "alignment"),
                            (made_from(members, short, CONFIG), "alignment"),
                            (made_from(members, store, replace(CONFIG, num_states=2)), "num states")):
        with pytest.raises(ValueError, match=f"soft targets of another {what} than this experiment's"):
            read_soft_targets(tmp_path, 0, 1.0, source)
    with pytest.raises(ValueError, match=r"has the temperatures \[1.0, 5.0\], not 2; add it"):
        read_soft_targets(tmp_path, 0, 2.0, made_from(members, store, CONFIG))


def test_a_truncated_and_a_changed_shard_are_named(teacher, tmp_path):
    members, store = teacher
    source = write(tmp_path, members, store)
    shard = tmp_path / "pass_0" / "shard_4.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="shard_4.npy: damaged, its SHA-256 is not the one in pass.json"):
        read_soft_targets(tmp_path, 0, 1.0, source, check=True)
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="shard_4.npy: truncated or damaged"):
        read_soft_targets(tmp_path, 0, 1.0, source)
    (tmp_path / "pass_0" / "pass.json").write_text("")
    with pytest.raises(ValueError, match="pass.json: damaged"):
        read_soft_targets(tmp_path, 0, 1.0, source)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="all above 0"):
        SoftTargetsConfig(temperatures=(0.0, 1.0))
    with pytest.raises(ValueError, match="teacher is 'median'; known are arithmetic and geometric"):
        SoftTargetsConfig(teacher="median")
    with pytest.raises(ValueError, match="at least 1"):
        SoftTargetsConfig(num_states=0)
    with pytest.raises(ValueError, match="may not be negative"):
        DistillationConfig(hard_label_weight=-0.5)
    with pytest.raises(ValueError, match="students would learn nothing"):
        DistillationConfig(soft_target_weight=0.0, hard_label_weight=0.0)
