"""Audio files as samples for the filterbanks: WAV, FLAC, NIST SPHERE and what else libsndfile reads.

Samples come on the 16-bit scale (+-32768), as Kaldi's feature extraction expects them. A truncated file is an
error: libsndfile itself reads what is left of a WAV or SPHERE file without a word. Letter: N samples.
"""

import functools
import logging
import re
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

# Seconds by which a segment may end after its file, to be cut there: Kaldi's extract-segments --max-overshoot.
MAX_OVERSHOOT = 0.5
# Bytes: WAV files written to a pipe claim 2 or 4 GB (sox 0x7FFFF000, ffmpeg 0xFFFFFFFF), for an unknown length.
UNKNOWN_LENGTH = 0x7FFF0000

log = logging.getLogger(__name__)


def read_audio(
    path: Path, sample_rate: int, start: float | None = None, end: float | None = None, channel: int | None = None,
    speed: float = 1.0,
) -> np.ndarray:
    """The samples of an audio file, or of its part from `start` to `end` in seconds: float32 [N], 16-bit scale.

    Audio of another rate is resampled to `sample_rate`, and the log says so once for each rate and process. A
    file of several channels needs a `channel`, counted from 0. speed: how many times as fast it is played, in
    hundredths, which moves its pitch too (sox's `speed`).
    Raises FileNotFoundError, and ValueError for a file that is empty, truncated or not audio, for a sample that
    is not finite, for a missing or wrong `channel`, and for a segment that is not in the file.
    """
    with _open(path) as file:
        rate = file.samplerate
        if channel is None and file.channels > 1:
            raise ValueError(f"{path}: {file.channels} channels; choose one by the setting `channel`, from 0 on")
        if not 0 <= (channel or 0) < file.channels:
            raise ValueError(f"{path}: has no channel {channel}, only 0 to {file.channels - 1}; set `channel` to one")
        first, last = _sample_range(path, file, start, end)
        try:
            file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True)[:, channel or 0]
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path}: damaged or truncated ({error}); restore the file") from error
    if len(samples) < last - first:
        raise ValueError(f"{path}: truncated: {first + len(samples)} of {last} samples are there; restore the file")
    if not np.isfinite(samples).all():
        place = first + np.flatnonzero(~np.isfinite(samples))[0]
        raise ValueError(f"{path}: sample {place} is not a finite number; make the file again")
    if rate != sample_rate:
        _notice_resampling(rate, sample_rate)
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    for have, want in ((rate, sample_rate), (round(100 * speed), 100)):
        waveform = torchaudio.functional.resample(waveform, have, want)  # as it is, where they are the same
    return waveform.numpy() * np.float32(32768)


def duration(path: Path) -> float:
    """Seconds of audio in a file, by its header; raises what `read_audio` does for a file that is not whole."""
    with _open(path) as file:
        return file.frames / file.samplerate


def _open(path: Path) -> soundfile.SoundFile:
    """The open file, which holds at least one sample and all that its header promises."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file; restore it or remove its utterances")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; restore it or remove its utterances")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: named *.raw, which has no header
        raise ValueError(f"{path}: not readable as audio ({error}); convert it to WAV or FLAC") from error
    if file.frames == 0 or _promises_more(path, file):
        file.close()
        raise ValueError(f"{path}: empty or truncated: {file.frames} samples are there; restore the file")
    return file


def _promises_more(path: Path, file: soundfile.SoundFile) -> bool:
    """Whether the header of a WAV or SPHERE file tells of more than the `file.frames` that libsndfile can read."""
    if file.format == "NIST":
        with path.open("rb") as header:
            count = re.search(rb"^sample_count -i (\d+)", header.read(1024), re.MULTILINE)
        return count is not None and int(count[1]) > file.frames
    # Only libsndfile's log knows what a WAV header says, in bytes: "data : 32000 (should be 15978)".
    promised = re.search(r"^data : (\d+) \(should be", file.extra_info, re.MULTILINE)
    return promised is not None and int(promised[1]) < UNKNOWN_LENGTH


def _sample_range(path: Path, file: soundfile.SoundFile, start: float | None, end: float | None) -> tuple[int, int]:
    """The first sample of a segment and the one after its last, at the file's own rate."""
    first = round((start or 0.0) * file.samplerate)
    last = file.frames if end is None else round(end * file.samplerate)
    if not 0 <= first < min(last, file.frames) or last > file.frames + MAX_OVERSHOOT * file.samplerate:
        raise ValueError(f"{path}: the segment from {start} to {end} s is not in the file, which has "
                         f"{file.frames / file.samplerate:.2f} s; mend it in `segments`")
    return first, min(last, file.frames)


@functools.cache  # so that a process logs each pair of rates once
def _notice_resampling(rate: int, sample_rate: int) -> None:
    log.warning("audio at %d Hz is resampled to %d Hz", rate, sample_rate)
