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


@pytest.mark.parametrize("rate", [11127, 22254, 44056, 16001])
def test_rates_without_a_common_divisor_are_resampled_without_a_filter_for_every_phase(write, rate):
    assert audio.filter_values(rate, 16000) > audio.MOST_FILTER_VALUES  # 11127: 16000 * (2 * 7 + 11127), 713 MB
    path = write("a.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate, subtype="FLOAT")
    samples = read_audio(path, 16000)
    assert len(samples) == 16000
    expected = 16384 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(samples - expected)[100:-100].max() < 16384 * 0.01


@pytest.mark.parametrize(("have", "want"), [(11025, 8000), (8000, 11025), (44100, 16000)])
def test_resampling_sample_by_sample_gives_what_torchaudio_does(monkeypatch, have, want):
    samples = np.random.default_rng(0).normal(0, 0.1, 5001).astype(np.float32)
    expected = audio.resample(samples, have, want)
    monkeypatch.setattr(audio, "MOST_FILTER_VALUES", 0)
    found = audio.resample(samples, have, want)
    assert found.dtype == expected.dtype == np.float32 and len(found) == len(expected)
    assert np.abs(found - expected).max() < 1e-5


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
                         [*FORMATS, ("b.wav", "WAV", "FLOAT"), ("c.wav", "WAVEX", "PCM_16"),
                          ("a.aiff", "AIFF", "PCM_16"), ("b.aiff", "AIFF", "ULAW"),
                          ("a.au", "AU", "PCM_16"), ("a.ogg", "OGG", "VORBIS"),
                          ("a.opus", "OGG", "OPUS")])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_an_error(write, name, container, subtype, kept):
    path = write(name, format=container, subtype=subtype)
    read_audio(path, RATE)
    content = path.read_bytes()
    path.write_bytes(content[:max(int(kept * len(content)), 60)])
    with pytest.raises(ValueError, match=f"{name}: .*(truncated|not readable as audio)"):
        read_audio(path, RATE)


def test_an_ogg_file_cut_between_two_pages_is_an_error(write):
    path = write("a.ogg", np.random.default_rng(0).normal(0, 0.1, 100 * RATE), format="OGG", subtype="VORBIS")
    content = path.read_bytes()
    path.write_bytes(content[:content.rindex(b"OggS")])
    assert soundfile.info(path).frames > RATE  # libsndfile reads what is left
    for function in (duration, lambda path: read_audio(path, RATE)):
        with pytest.raises(ValueError, match="a.ogg: empty or truncated"):
            function(path)


@pytest.mark.parametrize(("name", "container"), [("a.voc", "VOC"), ("a.caf", "CAF"), ("a.w64", "W64"),
                                                 ("a.mp3", "MP3")])
def test_a_container_that_would_not_be_checked_is_refused_by_name(write, name, container):
    with pytest.raises(ValueError, match=f"{name}: {container} files are not supported, .*convert it to WAV or FLAC"):
        duration(write(name, format=container))


def test_flac_that_does_not_tell_its_length_is_refused(write):
    path = write("a.flac")
    content = bytearray(path.read_bytes())
    assert int.from_bytes(content[21:26]) & 2**36 - 1 == len(RAMP)
    content[21:26] = (int.from_bytes(content[21:26]) >> 36 << 36).to_bytes(5)
    path.write_bytes(content)
    for function in (duration, lambda path: read_audio(path, RATE)):
        with pytest.raises(ValueError, match="a.flac: its header does not tell its length, .*convert it"):
            function(path)


def test_wav_in_gsm_which_cannot_seek_is_read_with_its_segments(write):
    path = write("a.wav", 0.3 * np.sin(np.arange(16000) / 10), subtype="GSM610")
    samples = read_audio(path, RATE)
    assert len(samples) == 16000 and duration(path) == 2.0
    assert np.corrcoef(samples, np.sin(np.arange(16000) / 10))[0, 1] > 0.9
    assert np.array_equal(read_audio(path, RATE, 0.5, 1.25), samples[4000:10000])


def test_a_shortened_sphere_file_is_refused_and_the_error_says_what_expands_it(tmp_path):
    header = ("NIST_1A\n   1024\nchannel_count -i 1\nsample_rate -i 8000\nsample_n_bytes -i 2\n"
              "sample_byte_format -s2 01\nsample_coding -s26 pcm,embedded-shorten-v2.00\nsample_count -i 99\n"
              "end_head\n")
    (tmp_path / "a.sph").write_bytes(header.encode().ljust(1024) + b"ajkg" + bytes(99))
    with pytest.raises(ValueError, match="a.sph: not readable as audio .*sph2pipe -f wav expands"):
        read_audio(tmp_path / "a.sph", RATE)


def test_a_wav_file_in_a_kaldi_archive_is_the_same_as_alone(write, tmp_path):
    """As wav-copy writes them: one file after the other, each after its key."""
    first, second = (write(name, samples).read_bytes() for name, samples in (("a.wav", RAMP[:99]), ("b.wav", RAMP)))
    (tmp_path / "x.ark").write_bytes(b"a " + first + b"b " + second)
    offset = len(first) + 4
    assert duration(tmp_path / "x.ark", offset=2) == 99 / RATE
    assert np.array_equal(read_audio(tmp_path / "x.ark", RATE, offset=2), RAMP[:99])
    assert np.array_equal(read_audio(tmp_path / "x.ark", RATE, 0.25, 0.3, offset=offset), RAMP[2000:2400])
    with pytest.raises(ValueError, match="x.ark:3: no WAV file begins at this byte"):
        read_audio(tmp_path / "x.ark", RATE, offset=3)
    (tmp_path / "x.ark").write_bytes(b"a " + first + b"b " + second[:-1])
    with pytest.raises(ValueError, match=f"x.ark:{offset}: truncated: the archive ends before"):
        duration(tmp_path / "x.ark", offset=offset)


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
