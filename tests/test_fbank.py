import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.compliance import kaldi

from decant.experiment import Experiment
from decant.feat import fbank as fbank_module
from decant.feat.archive import read_matrices, write_matrices
from decant.feat.data_dir import Utterance, write_data_dir
from decant.feat.fbank import (
    FbankConfig,
    check_same_features,
    cmvn_statistics,
    compute_fbank_dir,
    fbank,
    load_features,
    normalise,
    read_fbank_config,
    read_speakers,
    read_unusable,
)
from decant.feat.front_end import read_filterbanks
from steps import compute_fbank
from steps.stage_program import Stage

RATE = 16000


def sine(hertz: float, seconds: float) -> np.ndarray:
    return (10000 * np.sin(2 * np.pi * hertz * np.arange(round(RATE * seconds)) / RATE)).astype(np.float32)


@pytest.fixture
def make_data_dir(tmp_path):
    """A data directory of noise; names start with the speaker, each utterance's length is given in samples."""

    def make(**lengths: int) -> Path:
        random = np.random.default_rng(0)
        utterances = []
        for name, length in lengths.items():
            path = tmp_path / "wav" / f"{name}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, random.integers(-9999, 9999, length, dtype=np.int16), RATE)
            utterances.append(Utterance(name, name.partition("_")[0], path, ("YES",)))
        write_data_dir(tmp_path / "data", utterances)
        return tmp_path / "data"

    return make


def test_a_tone_of_1_khz_is_loudest_in_the_bin_around_1_khz():
    # 40 triangles, evenly spaced on the mel scale 1127 ln(1 + f / 700) from 20 Hz to 8 kHz: bin k is centred k + 1
    # steps up. 1 kHz is 1000 mel, 20 Hz 31.7, 8 kHz 2840.0; a step is (2840.0 - 31.7) / 41 = 68.5 mel, and 1 kHz
    # stands (1000 - 31.7) / 68.5 = 14.1 steps up.
    frames = fbank(sine(1000, 0.5), FbankConfig())
    assert set(frames.argmax(dim=1).tolist()) == {13}


@pytest.mark.parametrize("snip_edges", [True, False])
@pytest.mark.parametrize("length", [400, 559, 560, 1234, 16000])
def test_the_number_of_frames_follows_kaldis_formula(snip_edges, length):
    frames = fbank(sine(300, length / RATE), FbankConfig(snip_edges=snip_edges))
    expected = 1 + (length - 400) // 160 if snip_edges else (length + 80) // 160
    assert frames.shape == (expected, 40) and frames.dtype == torch.float32


def test_a_frame_is_the_log_of_mel_weighted_power_worked_out_step_by_step():
    window = np.random.default_rng(0).normal(50, 1000, 400).astype(np.float32)
    signal = window - window.mean()
    signal = signal - 0.97 * np.concatenate([signal[:1], signal[:-1]])  # pre-emphasis
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(signal * povey, 512)) ** 2

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(20), mel(8000), 42)
    bins = mel(np.arange(257) * RATE / 512)
    for k, value in enumerate(fbank(window, FbankConfig())[0].tolist()):
        rise = (bins - edges[k]) / (edges[k + 1] - edges[k])
        fall = (edges[k + 2] - bins) / (edges[k + 2] - edges[k + 1])
        assert math.log(power @ np.clip(np.minimum(rise, fall), 0, None)) == pytest.approx(value, abs=1e-3)


def test_a_louder_signal_moves_every_bin_by_the_same_amount():
    quiet, loud = (fbank(gain * sine(440, 0.1), FbankConfig()) for gain in (1.0, 2.0))
    assert torch.allclose(loud - quiet, torch.tensor(2 * math.log(2)), atol=1e-2)


def test_settings_reach_torchaudio():
    config = FbankConfig(8000, 23, 20.0, 8.0, 100.0, -200.0, False)
    expected = kaldi.fbank(torch.from_numpy(sine(440, 0.2))[None], sample_frequency=8000, num_mel_bins=23,
                           frame_length=20, frame_shift=8, low_freq=100, high_freq=-200, snip_edges=False)
    assert torch.equal(fbank(sine(440, 0.2), config), expected)


def test_dither_changes_the_frames_in_the_same_way_each_time_and_leaves_the_seed_alone():
    config = FbankConfig(dither=1.0)
    torch.manual_seed(1)
    first = fbank(sine(440, 0.1), config)
    number = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), number)
    assert torch.equal(fbank(sine(440, 0.1), config), first)
    assert not torch.equal(fbank(sine(440, 0.1), FbankConfig()), first)


def test_digital_silence_has_finite_frames():
    assert fbank(np.zeros(800, dtype=np.float32), FbankConfig()).isfinite().all()


def test_a_signal_shorter_than_a_window_is_refused():
    for snip_edges in (True, False):
        with pytest.raises(ValueError, match="399 samples are fewer than a window of 400"):
            fbank(np.zeros(399, dtype=np.float32), FbankConfig(snip_edges=snip_edges))


@pytest.mark.parametrize("wrong", [
    {"low_freq": 9000.0}, {"high_freq": 8001.0}, {"high_freq": -7990.0}, {"frame_shift_ms": 30.0},
    {"frame_shift_ms": 0.01}, {"dither": -1.0}, {"channel": -2}, {"normalisation": "batch"}, {"num_bins": 3},
])
def test_a_setting_that_cannot_be_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FbankConfig(**wrong)


def test_normalised_frames_have_mean_0_and_variance_1():
    frames = np.array([[1, 10], [3, 30]], dtype=np.float32)
    statistics = cmvn_statistics(frames)
    assert statistics.tolist() == [[4, 40, 2], [10, 1000, 0]]
    assert normalise(frames, statistics).tolist() == [[-1, -1], [1, 1]]


@pytest.mark.parametrize("frames", [[[5, 1e4]], [[5, 1e4], [5, 1e4]]])
def test_one_frame_or_a_constant_bin_gives_zeros_and_no_nan(frames):
    frames = np.array(frames, dtype=np.float32)
    assert not normalise(frames, cmvn_statistics(frames)).any()


def test_a_bin_that_hardly_varies_is_not_blown_up():
    frames = np.array([[5.01], [4.99]], dtype=np.float32)  # variance 0.0001, floored to 0.01
    assert normalise(frames, cmvn_statistics(frames)).ravel() == pytest.approx([0.1, -0.1], abs=1e-4)


def test_each_speaker_is_normalised_over_all_their_utterances(make_data_dir, tmp_path):
    compute_fbank_dir(make_data_dir(ann_1=4000, ann_2=8000, bob_1=4000), tmp_path / "fbank", FbankConfig(), jobs=1)
    features = dict(load_features(tmp_path / "fbank"))
    assert list(features) == ["ann_1", "ann_2", "bob_1"]
    for spoken in (["ann_1", "ann_2"], ["bob_1"]):
        frames = np.concatenate([features[name] for name in spoken])
        assert frames.dtype == np.float32
        assert frames.mean(axis=0) == pytest.approx(np.zeros(40), abs=1e-5)
        assert frames.std(axis=0) == pytest.approx(np.ones(40), abs=1e-4)
    assert np.abs(features["ann_1"].mean(axis=0)).max() > 1e-3


@pytest.mark.parametrize("normalisation", ["utterance", "none"])
def test_frames_are_normalised_as_the_settings_say(make_data_dir, tmp_path, normalisation):
    config = FbankConfig(normalisation=normalisation)
    compute_fbank_dir(make_data_dir(ann_1=4000, ann_2=8000), tmp_path / "fbank", config, jobs=1)
    for utterance, frames in read_matrices(tmp_path / "fbank" / "feats.scp"):
        expected = normalise(frames, cmvn_statistics(frames)) if normalisation == "utterance" else frames
        (_, loaded), = load_features(tmp_path / "fbank", [utterance])
        assert np.array_equal(loaded, expected)


def test_statistics_are_kaldis(make_data_dir, tmp_path):
    compute_fbank_dir(make_data_dir(ann_1=4000, ann_2=8000), tmp_path / "fbank", FbankConfig(), jobs=1)
    (speaker, statistics), = read_matrices(tmp_path / "fbank" / "cmvn.scp")
    frames = np.concatenate([frames for _, frames in read_matrices(tmp_path / "fbank" / "feats.scp")])
    assert speaker == "ann" and statistics.dtype == np.float64
    assert statistics[0, -1] == len(frames) == 23 + 48 and statistics[1, -1] == 0
    assert statistics[0, :-1] == pytest.approx(frames.sum(axis=0), rel=1e-5)


def test_copies_at_other_speeds_have_names_speakers_and_lengths_of_their_own(make_data_dir, tmp_path):
    data = make_data_dir(ann_1=16000, bob_1=8000)
    unusable = compute_fbank_dir(data, tmp_path / "fbank", FbankConfig(), jobs=1, speeds=(1.25, 0.8))
    lengths = {utterance: len(frames) for utterance, frames in load_features(tmp_path / "fbank")}
    assert list(lengths.items()) == [("sp0.8-ann_1", 123), ("sp0.8-bob_1", 61), ("sp1.25-ann_1", 78),
                                     ("sp1.25-bob_1", 38)]
    assert set(read_speakers(tmp_path / "fbank").values()) == {"sp0.8-ann", "sp0.8-bob", "sp1.25-ann", "sp1.25-bob"}
    assert not unusable


def test_an_utterance_shorter_than_a_window_is_reported_and_left_out(make_data_dir, tmp_path):
    data = make_data_dir(ann_1=399, ann_2=400)
    unusable = compute_fbank_dir(data, tmp_path / "fbank", FbankConfig(), jobs=1)
    assert unusable == {"ann_1": "24.9 ms of audio are less than a window of 25.0 ms"}
    assert read_unusable(tmp_path / "fbank") == unusable
    assert [utterance for utterance, _ in load_features(tmp_path / "fbank")] == ["ann_2"]
    with pytest.raises(ValueError, match="feats.scp: no frames of utterance ann_1: 24.9 ms of audio are less"):
        list(load_features(tmp_path / "fbank", ["ann_1"]))


def test_a_directory_without_any_usable_utterance_is_an_error(make_data_dir, tmp_path):
    with pytest.raises(ValueError, match="data: none of 2 utterances can be used; the first is ann_1: 0.6 ms of audio"):
        compute_fbank_dir(make_data_dir(ann_1=10, ann_2=20), tmp_path / "fbank", FbankConfig(), jobs=1)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_two_processes_write_the_same_bytes_as_one(make_data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(fbank_module, "CHUNK_SIZE", 2)
    monkeypatch.setattr(fbank_module, "CHUNKS_A_JOB", 1)
    data = make_data_dir(ann_1=4000, ann_2=300, bob_1=5000, bob_2=200, cid_1=300)
    for jobs in (1, 2):
        compute_fbank_dir(data, tmp_path / f"fbank{jobs}", FbankConfig(), jobs)
    assert contents(tmp_path / "fbank1") == contents(tmp_path / "fbank2")
    assert len(list((tmp_path / "fbank1" / "chunks").iterdir())) == 3


def test_all_audio_that_cannot_be_read_is_reported_and_once_mended_computed_alone(make_data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(fbank_module, "CHUNK_SIZE", 2)
    data = make_data_dir(ann_1=4000, ann_2=5000, ann_3=4000, bob_1=4000)
    sound = {name: (tmp_path / "wav" / f"{name}.wav").read_bytes() for name in ("ann_3", "bob_1")}
    for name, content in sound.items():
        (tmp_path / "wav" / f"{name}.wav").write_bytes(content[:999])
    unusable = compute_fbank_dir(data, tmp_path / "fbank", FbankConfig(), jobs=1)
    assert list(unusable) == ["ann_3", "bob_1"]
    assert all(reason.endswith(f"{name}.wav: empty or truncated: 477 samples are there; restore the file")
               for name, reason in unusable.items())
    assert read_unusable(tmp_path / "fbank") == unusable
    assert [utterance for utterance, _ in load_features(tmp_path / "fbank")] == ["ann_1", "ann_2"]
    first, = (tmp_path / "fbank" / "chunks").glob("00000-*")
    inode = (first / "feats.ark").stat().st_ino

    for name, content in sound.items():
        (tmp_path / "wav" / f"{name}.wav").write_bytes(content)
    assert not compute_fbank_dir(data, tmp_path / "fbank", FbankConfig(), jobs=1)
    assert (first / "feats.ark").stat().st_ino == inode
    compute_fbank_dir(data, tmp_path / "untouched", FbankConfig(), jobs=1)
    assert contents(tmp_path / "fbank") == contents(tmp_path / "untouched")


def test_stage_2_names_the_unusable_audio_of_every_split_and_holds_it_against_max_unusable(tmp_path, caplog):
    """One of ten files is bad in train and in test; a tenth may be unusable in the second run."""
    for split, bad in (("train", 2), ("dev", None), ("test", 9)):
        utterances = []
        for i in range(10):
            path = tmp_path / f"{split}_{i}.wav"
            soundfile.write(path, np.random.default_rng(i).integers(-9999, 9999, 500, dtype=np.int16), RATE)
            utterances.append(Utterance(f"{split}_{i}", split, path, ("YES",)))
        write_data_dir(tmp_path / "exp" / "data" / split, utterances)
        if bad is not None:
            (tmp_path / f"{split}_{bad}.wav").write_bytes(b"RIFF")
    out = tmp_path / "out"
    stage = Stage(Experiment(tmp_path / "exp", "fbank", out), out, 1, torch.device("cpu"))
    stage.out.mkdir()
    for limit in (0.09, 0.1):
        (stage.out / "stage.toml").write_text(f"[fbank]\n[utterances]\nmax_unusable = {limit}\n")
        caplog.clear()
        if limit == 0.1:
            compute_fbank.main(stage)
        else:
            with pytest.raises(ValueError, match="train: 1 of 10 .*\n?test: 1 of 10 .* than max_unusable = 0.09"):
                compute_fbank.main(stage)
        assert [re.search(r"utterance (\w+) is left out", record.getMessage())[1] for record in caplog.records] == [
            "train_2", "test_9"]
    assert list(read_unusable(stage.out / "test")) == ["test_9"]


def test_samples_too_large_for_finite_frames_are_reported_as_unusable(make_data_dir, tmp_path):
    data = make_data_dir(ann_1=4000, ann_2=5000)
    samples = np.random.default_rng(0).normal(0, 1e20, 5000).astype(np.float32)
    soundfile.write(tmp_path / "wav" / "ann_2.wav", samples, RATE, subtype="FLOAT")
    unusable = compute_fbank_dir(data, tmp_path / "fbank", FbankConfig(), jobs=1)
    assert "samples of up to 1" in unusable["ann_2"] and "frames that are not finite" in unusable["ann_2"]
    assert [utterance for utterance, _ in load_features(tmp_path / "fbank")] == ["ann_1"]


def test_channels_and_offsets_of_wav_scp_reach_the_reader(tmp_path):
    """Two channels as sph2pipe's -c names them, and the second of two files in an archive: the same as each alone."""
    first, second = np.random.default_rng(0).integers(-9999, 9999, (2, 4000), dtype=np.int16)
    soundfile.write(tmp_path / "both.sph", np.stack([first, second], axis=1), RATE, format="NIST", subtype="PCM_16")
    soundfile.write(tmp_path / "first.wav", first, RATE)
    wav = (tmp_path / "first.wav").read_bytes()
    (tmp_path / "x.ark").write_bytes(b"a " + wav + b"b " + wav)
    sources = {"a": (tmp_path / "both.sph", 0, None), "b": (tmp_path / "both.sph", 1, None),
               "c": (tmp_path / "x.ark", None, len(wav) + 4)}
    write_data_dir(tmp_path / "data", [Utterance(name, "s", path, ("YES",), channel=channel, offset=offset)
                                       for name, (path, channel, offset) in sources.items()])
    compute_fbank_dir(tmp_path / "data", tmp_path / "fbank", FbankConfig(), jobs=1)
    frames = dict(read_matrices(tmp_path / "fbank" / "feats.scp"))
    for name, samples in {"a": first, "b": second, "c": first}.items():
        assert np.array_equal(frames[name], fbank(samples, FbankConfig()).numpy())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_frames_that_are_not_finite_are_named_where_they_are_read(make_data_dir, tmp_path, value):
    compute_fbank_dir(make_data_dir(ann_1=4000), tmp_path / "fbank", FbankConfig(), jobs=1)
    (name, frames), = read_matrices(tmp_path / "fbank" / "feats.scp")
    frames[3, 7] = value
    write_matrices(tmp_path / "fbank" / "feats", [(name, frames)])
    for read in (load_features, lambda folder: read_filterbanks(folder).cepstra(13)):
        with pytest.raises(ValueError, match="feats.scp: frame 3 of utterance ann_1 is not finite"):
            list(read(tmp_path / "fbank"))


def test_chunks_of_other_settings_are_not_taken_over(make_data_dir, tmp_path):
    data = make_data_dir(ann_1=4000)
    for config in (FbankConfig(num_bins=23), FbankConfig(num_bins=30)):
        compute_fbank_dir(data, tmp_path / "fbank", config, jobs=1)
        assert [frames.shape[1] for _, frames in load_features(tmp_path / "fbank")] == [config.num_bins]
        assert len(list((tmp_path / "fbank" / "chunks").iterdir())) == 1


def test_settings_are_kept_beside_the_frames(make_data_dir, tmp_path):
    config = FbankConfig(num_bins=23, high_freq=-400.0, normalisation="none")
    compute_fbank_dir(make_data_dir(ann_1=4000), tmp_path / "fbank", config, jobs=1)
    assert read_fbank_config(tmp_path / "fbank") == config
    (tmp_path / "fbank" / "fbank.toml").write_text("num_bands = 40\n")
    with pytest.raises(ValueError, match="fbank.toml: .*num_bands"):
        read_fbank_config(tmp_path / "fbank")


def test_other_feature_settings_are_refused_with_both_values():
    expected = FbankConfig()
    check_same_features(expected, FbankConfig(), "exp/model")
    with pytest.raises(ValueError, match="exp/model: .*num_bins is 80, not 40, snip_edges is False, not True;"):
        check_same_features(expected, dataclasses.replace(expected, num_bins=80, snip_edges=False), "exp/model")
