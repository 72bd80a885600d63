import logging

import numpy as np
import pytest
import soundfile

from decant.feat import audio
from decant.feat.audio import duration, read_audio

RATE = 8000
RAMP = np.arange(-4000, 4000, dtype=np.int16)  # one second, each sample another value


@pytest.fixture
def write(tmp_path):
    def write(name: str, samples: np.ndarray = RAMP, rate: int = RATE, **how):
        soundfile.write(tmp_path / name, samples, rate, **how)
        return tmp_path / name

    return write


FORMATS = [("a.wav", "WAV", "PCM_16"), ("a.flac", "FLAC", "PCM_16"), ("a.sph", "NIST", "PCM_16")]


@pytest.mark.parametrize(("name", "container", "subtype"), [*FORMATS, ("b.wav", "WAV", "PCM_24")])
def test_samples_come_as_written_on_the_16_bit_scale(write, name, container, subtype):
    path = write(name, format=container, subtype=subtype)
    samples = read_audio(path, RATE)
    assert samples.dtype == np.float32
    assert np.array_equal(samples, RAMP)
    assert duration(path) == 1.0


def test_float_files_are_scaled_to_16_bits_too(write):
    samples = read_audio(write("a.wav", np.array([0.5, -1.0]), subtype="FLOAT"), RATE)
    assert samples.tolist() == [16384.0, -32768.0]


@pytest.mark.parametrize(("name", "container", "subtype"), FORMATS)
def test_a_segment_is_the_same_samples_as_in_the_whole_file(write, name, container, subtype):
    path = write(name, format=container, subtype=subtype)
    assert np.array_equal(read_audio(path, RATE, 0.25, 0.3), RAMP[2000:2400])


def test_a_segment_that_ends_half_a_second_after_the_file_is_cut_there(write):
    assert np.array_equal(read_audio(write("a.wav"), RATE, 0.75, 1.5), RAMP[6000:])


@pytest.mark.parametrize(("start", "end"), [(0.75, 1.51), (1.0, 1.1), (0.5, 0.5), (0.5, 0.25), (-0.1, 0.5)])
def test_a_segment_outside_of_the_file_is_refused(write, start, end):
    with pytest.raises(ValueError, match=rf"a.wav: the segment from {start} to {end} s is not in the file.* 1.00 s"):
        read_audio(write("a.wav"), RATE, start, end)


def test_audio_of_another_rate_is_resampled_and_the_log_says_so_once(write, caplog):
    audio._notice_resampling.cache_clear()
    seconds = np.arange(22050) / 22050
    path = write("a.wav", 0.5 * np.sin(2 * np.pi * 440 * seconds), 22050, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        samples = read_audio(path, 16000)
        read_audio(path, 16000)
    assert len(samples) == 16000
    expected = 16384 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(samples - expected)[100:-100].max() < 16384 * 0.01
    assert [record.getMessage() for record in caplog.records] == ["audio at 22050 Hz is resampled to 16000 Hz"]


@pytest.mark.parametrize(("speed", "length", "pitch"), [(0.8, 10000, 352), (1.25, 6400, 550)])
def test_a_faster_speed_is_shorter_and_higher(write, speed, length, pitch):
    path = write("a.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / RATE), subtype="FLOAT")
    samples = read_audio(path, RATE, 0.5, 1.5, speed=speed)  # the segment is the recording's
    assert len(samples) == length
    loudest = np.abs(np.fft.rfft(samples)).argmax() * RATE / length
    assert loudest == pytest.approx(pitch, abs=1)


def test_stereo_is_refused_until_a_channel_is_chosen(write):
    path = write("a.wav", np.stack([RAMP, RAMP[::-1]], axis=1))
    with pytest.raises(ValueError, match="a.wav: 2 channels; choose one by the setting `channel`"):
        read_audio(path, RATE)
    assert np.array_equal(read_audio(path, RATE, channel=1), RAMP[::-1])
    for channel in (2, -1):
        with pytest.raises(ValueError, match=f"a.wav: has no channel {channel}, only 0 to 1"):
            read_audio(path, RATE, channel=channel)


def test_missing_empty_and_non_audio_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.wav: no such audio file"):
        read_audio(tmp_path / "none.wav", RATE)
    for name, content, message in [("empty.wav", b"", "empty"), ("text.wav", b"YES\n" * 99, "not readable as audio"),
                                   ("a.raw", b"\1\2" * 99, "not readable as audio")]:
        (tmp_path / name).write_bytes(content)
        for function in (duration, lambda path: read_audio(path, RATE)):
            with pytest.raises(ValueError, match=f"{name}: .*{message}"):
                function(tmp_path / name)


@pytest.mark.parametrize(("name", "container", "subtype"),
                         [*FORMATS, ("b.wav", "WAV", "FLOAT"), ("c.wav", "WAVEX", "PCM_16")])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9999])
def test_a_truncated_file_is_an_error(write, name, container, subtype, kept):
    path = write(name, format=container, subtype=subtype)
    content = path.read_bytes()
    path.write_bytes(content[:max(int(kept * len(content)), 60)])
    with pytest.raises(ValueError, match=f"{name}: .*(truncated|not readable as audio)"):
        read_audio(path, RATE)


def test_a_file_of_a_header_alone_is_an_error(write):
    with pytest.raises(ValueError, match="a.wav: empty or truncated: 0 samples"):
        read_audio(write("a.wav", RAMP[:0]), RATE)


def test_a_wav_file_from_a_pipe_which_claims_4_gigabytes_is_whole(write):
    path = write("a.wav")
    content = bytearray(path.read_bytes())
    assert content[36:40] == b"data"
    content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert np.array_equal(read_audio(path, RATE), RAMP)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_no_number_is_refused(write, value):
    path = write("a.wav", np.array([0.0, 0.1, value, 0.2]), subtype="FLOAT")
    with pytest.raises(ValueError, match="a.wav: sample 2 is not a finite number"):
        read_audio(path, RATE)


def test_digital_silence_is_allowed(write):
    assert not read_audio(write("a.wav", np.zeros(100)), RATE).any()
