import re
import weakref

import numpy as np
import pytest
import torch

from decant.feat.archive import read_int_vectors
from decant.nnet.frame_store import (
    FramesConfig,
    free_memory,
    pack,
    read_frame_store,
    write_frame_store,
    write_labels,
    write_utterances,
)


@pytest.fixture
def folder(tmp_path):
    """Two utterances of one-bin frames: 0 1 2 and 10 11."""
    write_frame_store(tmp_path, pack([("a", np.array([[0.0], [1], [2]]), np.array([4, 5, 6])),
                                 ("b", np.array([[10.0], [11]]), np.array([7, 8]))]))
    return tmp_path


def test_windows_repeat_the_first_and_last_frame_of_their_own_utterance(folder):
    windows = read_frame_store(folder).windows(torch.tensor([0, 2, 3, 4]), range(-2, 2))
    assert windows.dtype == torch.float16
    assert windows[:, :, 0].tolist() == [[0, 0, 0, 1], [0, 1, 2, 2], [10, 10, 10, 11], [10, 10, 11, 11]]


def test_the_papers_window_predicts_its_21st_of_26_frames(folder):
    windows = read_frame_store(folder).windows(torch.tensor([1]), range(-20, 6))
    assert windows.shape == (1, 26, 1) and windows[0, 20, 0] == 1.0


def test_a_window_may_pass_over_frames(folder):
    windows = read_frame_store(folder).windows(torch.tensor([2, 3]), range(-2, 3, 2))
    assert windows[:, :, 0].tolist() == [[0, 2, 2], [10, 10, 11]]


def test_utterances_are_found_again(folder):
    store = read_frame_store(folder)
    assert [(name, store.pdfs[rows].tolist()) for name, rows in store.utterance_slices()] == [
        ("a", [4, 5, 6]), ("b", [7, 8])]


def test_stores_one_after_the_other_keep_their_utterances_apart(folder):
    store = read_frame_store(folder)
    more = pack([("c", np.array([[20.0], [21]]), np.array([1, 2]))])
    write_frame_store(folder / "both", store, more)
    both = read_frame_store(folder / "both")
    assert both.utterances == ("a", "b", "c") and both.pdfs.tolist() == [4, 5, 6, 7, 8, 1, 2]
    assert both.windows(torch.tensor([4, 5]), range(-1, 2))[:, :, 0].tolist() == [[10, 11, 11], [20, 20, 21]]


def test_a_store_is_written_as_its_utterances_come_one_in_memory_at_a_time(tmp_path):
    alive, most = set(), 0

    def utterances():
        nonlocal most
        for number in range(20):
            frames = np.full((number % 3 + 1, 2), number, np.float32)
            weakref.finalize(frames, alive.discard, number)
            alive.add(number)
            most = max(most, len(alive))
            yield f"u{number:02d}", frames, np.full(len(frames), number)
            del frames

    write_utterances(tmp_path, utterances())
    store = read_frame_store(tmp_path)
    assert most <= 3 and len(store) == 39 and store.pdfs.dtype == torch.int32
    assert all((store.frames[rows] == number).all() and (store.pdfs[rows] == number).all()
               for number, (_, rows) in enumerate(store.utterance_slices()))


def test_a_store_that_is_refused_leaves_the_one_before(folder):
    with pytest.raises(ValueError, match="utterance b: feature 0 of frame 0 is nan"):
        write_utterances(folder, [("a", np.zeros((2, 1)), np.zeros(2)), ("b", np.full((1, 1), np.nan), np.zeros(1))])
    with pytest.raises(ValueError, match="no utterances to store"):
        write_utterances(folder, [])
    assert read_frame_store(folder).utterances == ("a", "b") and not list(folder.glob(".*"))


def test_the_labels_of_a_store_are_an_archive_sorted_by_name(tmp_path):
    write_utterances(tmp_path, [(name, np.zeros((2, 1)), np.array(labels)) for name, labels in (("b", [1, 2]),
                                                                                                 ("a", [3, 4]))])
    write_labels(tmp_path)
    assert [(name, labels.tolist()) for name, labels in read_int_vectors(tmp_path / "ali.scp")] == [
        ("a", [3, 4]), ("b", [1, 2])]


def test_a_store_that_a_gpu_has_no_room_for_stays_where_it_is(folder, monkeypatch, caplog):
    """What torch holds without using it is room, too: 5 frames and their labels are 30 bytes."""
    store, gpu = read_frame_store(folder), torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert free_memory(gpu) == 30
    with caplog.at_level("INFO"):
        assert store.to(gpu) is store
    assert "5 frames, 0.0 GB, stay on the host: cuda:0 has 0.0 GB free" in caplog.text
    assert store.to(torch.device("cpu")).device.type == "cpu"


def test_a_store_of_some_utterances_has_their_windows_and_labels(folder):
    store = read_frame_store(folder)
    some = store.select([1])
    assert some.utterances == ("b",) and some.pdfs.tolist() == [7, 8]
    assert torch.equal(some.windows(torch.arange(2), range(-2, 2)), store.windows(torch.arange(3, 5), range(-2, 2)))
    both = store.select([1, 0])
    assert [(name, both.pdfs[rows].tolist()) for name, rows in both.utterance_slices()] == [
        ("b", [7, 8]), ("a", [4, 5, 6])]


def test_frames_are_kept_in_two_bytes(folder):
    assert np.load(folder / "frames.npy").dtype == np.float16


def test_frames_without_their_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="utterance a has 3 frames and 2 labels"):
        write_frame_store(tmp_path, pack([("a", np.zeros((3, 1)), np.array([1, 2]))]))


@pytest.mark.parametrize("value", [65520.0, -1e6, np.inf, np.nan])
def test_frames_that_two_bytes_cannot_hold_are_named(value):
    frames = np.array([[0.0, 1.0], [65504.0, 2.0], [3.0, value]], np.float32)
    assert pack([("a", frames[:2], np.array([1, 2]))]).frames.isfinite().all()
    shown = re.escape(f"{value:g}")
    with pytest.raises(ValueError, match=f"utterance b: feature 1 of frame 2 is {shown}; .* up to 65504"):
        pack([("a", frames[:2], np.array([1, 2])), ("b", frames, np.array([1, 2, 3]))])


def test_a_store_whose_files_do_not_fit_together_is_refused(folder):
    np.save(folder / "pdfs.npy", np.array([1, 2], np.int32))
    with pytest.raises(ValueError, match="5 frames, offsets up to 5, 2 labels"):
        read_frame_store(folder)


def test_a_truncated_store_is_refused(folder):
    frames = folder / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:-3])
    with pytest.raises(ValueError, match="frames.npy"):
        read_frame_store(folder)


@pytest.mark.parametrize("speeds", [(1.0,), (0.9, 0.9), (0.4,), (2.5,), (0.925,)])
def test_speeds_that_mean_nothing_are_refused(speeds):
    with pytest.raises(ValueError, match=r"speeds \(.* must be 0.5 to 2, in hundredths, and differ"):
        FramesConfig(speeds=speeds)
