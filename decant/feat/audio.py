"""Audio files as samples for the filterbanks: WAV, FLAC, NIST SPHERE, AIFF, AU and Ogg, and WAV in Kaldi's archives.

Samples come on the 16-bit scale (+-32768), as Kaldi's feature extraction expects them. A truncated file is an
error: libsndfile itself reads what is left of most containers without a word. Letter: N samples.
"""

import functools
import io
import logging
import math
import re
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

# libsndfile's names of the containers in which what the header promises is held against what is there.
CONTAINERS = ("WAV", "WAVEX", "FLAC", "NIST", "AIFF", "AU", "OGG")
# Seconds by which a segment may end after its file, to be cut there: Kaldi's extract-segments --max-overshoot.
MAX_OVERSHOOT = 0.5
# Bytes: WAV files written to a pipe claim 2 or 4 GB (sox 0x7FFFF000, ffmpeg 0xFFFFFFFF), for an unknown length.
UNKNOWN_LENGTH = 0x7FFF0000
FLAC_LIMIT = 2**36  # samples that a FLAC header can tell of; libsndfile says more where it tells of none
OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the longest
# torchaudio's resampling filter: zero crossings on each side, and its cut-off as a share of half the lower rate.
ZERO_CROSSINGS, ROLLOFF = 6, 0.99
# Values of the filters that torchaudio may make, one for each phase: 16 MB. 11025 to 16000 Hz needs 0.3 million.
MOST_FILTER_VALUES = 2**22

log = logging.getLogger(__name__)


def read_audio(
    path: Path, sample_rate: int, start: float | None = None, end: float | None = None, channel: int | None = None,
    speed: float = 1.0, offset: int | None = None,
) -> np.ndarray:
    """The samples of an audio file, or of its part from `start` to `end` in seconds: float32 [N], 16-bit scale.

    Audio of another rate is resampled to `sample_rate`, and the log says so once for each rate and process. A
    file of several channels needs a `channel`, counted from 0. speed: how many times as fast it is played, in
    hundredths, which moves its pitch too (sox's `speed`). offset: the byte of a Kaldi archive where a WAV file begins.
    Raises FileNotFoundError, and ValueError for a file that is empty, truncated, not audio, or in a container other
    than CONTAINERS, for a sample that is not finite, for a missing or wrong `channel`, and for a segment that is not
    in the file.
    """
    where = _name(path, offset)
    with _open(path, offset) as file:
        rate = file.samplerate
        if channel is None and file.channels > 1:
            raise ValueError(f"{where}: {file.channels} channels; choose one by the setting `channel`, from 0 on")
        if not 0 <= (channel or 0) < file.channels:
            raise ValueError(f"{where}: has no channel {channel}, only 0 to {file.channels - 1}; set "
                             "`channel`, or sph2pipe's -c in wav.scp, to one")
        first, last = _sample_range(where, file, start, end)
        try:
            # GSM 6.10 is read from its start. To seek in FLAC takes a tenth of the time of reading it.
            skipped = file.seek(first) if first and file.seekable() else 0
            # libsndfile's own way from 16 bits to floats takes twice as long as numpy's, to the same numbers.
            kind = "int16" if file.subtype == "PCM_16" else "float32"
            samples = file.read(last - skipped, dtype=kind, always_2d=True)[first - skipped:, channel or 0]
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{where}: damaged or truncated ({error}); restore the file") from error
    if len(samples) < last - first:
        raise ValueError(f"{where}: truncated: {first + len(samples)} of {last} samples are there; restore the file")
    if kind == "float32" and not np.isfinite(samples).all():
        place = first + np.flatnonzero(~np.isfinite(samples))[0]
        raise ValueError(f"{where}: sample {place} is not a finite number; make the file again")
    if rate != sample_rate:
        _notice_resampling(rate, sample_rate)
    samples = samples.astype(np.float32) if kind == "int16" else samples * np.float32(32768)
    for have, want in ((rate, sample_rate), (round(100 * speed), 100)):
        samples = resample(samples, have, want)
    return samples


def duration(path: Path, offset: int | None = None) -> float:
    """Seconds of audio in a file, by its header; raises what `read_audio` does for a file that is not whole, as far as
    can be told without decoding it (of FLAC, only reading tells)."""
    with _open(path, offset) as file:
        return file.frames / file.samplerate


def resample(samples: np.ndarray, have: int, want: int) -> np.ndarray:
    """Samples [N] at another rate: float32 [ceil(N want / have)]; as they are where the rates are the same.

    As torchaudio does it, which makes a filter of its own for every phase between the two rates: gigabytes where the
    rates have no large common divisor (11127 and 16000 Hz). There the same filter is worked out sample by sample.
    """
    if filter_values(have, want) <= MOST_FILTER_VALUES:
        return torchaudio.functional.resample(torch.from_numpy(samples), have, want).numpy()
    scale, width = _filter_size(have, want)
    taps = np.arange(-width, width + 2)
    padded = np.pad(samples, (width, width + 1))
    resampled = np.empty(-(-want * len(samples) // have), np.float32)
    for first in range(0, len(resampled), 4096):
        # A sample's time at the old rate, in whole samples and a fraction.
        whole, rest = np.divmod(np.arange(first, min(first + 4096, len(resampled))) * have, want)
        times = ((taps - rest[:, None] / want) * scale).clip(-ZERO_CROSSINGS, ZERO_CROSSINGS)
        window = np.cos(times * np.pi / (2 * ZERO_CROSSINGS)) ** 2
        values = padded[whole[:, None] + (taps + width)] * np.sinc(times) * window * scale
        resampled[first:first + len(values)] = values.sum(axis=1)
    return resampled


def filter_values(have: int, want: int) -> int:
    """Values of all the filters that torchaudio makes to resample from one rate to the other."""
    divisor = math.gcd(have, want)
    return want // divisor * (2 * _filter_size(have, want)[1] + have // divisor)


def _filter_size(have: int, want: int) -> tuple[float, int]:
    """Zero crossings of the resampling filter in a sample of the old rate, and the samples on each side of it."""
    scale = min(1.0, want / have) * ROLLOFF
    return scale, math.ceil(ZERO_CROSSINGS / scale)


def _name(path: Path, offset: int | None) -> str:
    return str(path) if offset is None else f"{path}:{offset}"


def _open(path: Path, offset: int | None) -> soundfile.SoundFile:
    """The open file, which holds at least one sample and all that its header promises."""
    path, where = Path(path), _name(path, offset)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file; restore it or remove its utterances")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; restore it or remove its utterances")
    try:
        file = soundfile.SoundFile(path if offset is None else _archived(path, offset))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: named *.raw, which has no header
        raise ValueError(f"{where}: not readable as audio ({error}); convert it to WAV or FLAC{_hint(path)}") from error
    problem = ""
    if file.format not in CONTAINERS:
        problem = f"{file.format} files are not supported, since half of one passes as whole; convert it to WAV or FLAC"
    elif file.frames > FLAC_LIMIT:
        problem = ("its header does not tell its length, as when FLAC is written to a pipe; convert it to WAV or FLAC, "
                   "written to a file")
    elif file.frames == 0 or _promises_more(path, file):
        problem = f"empty or truncated: {file.frames} samples are there; restore the file"
    if problem:
        file.close()
        raise ValueError(f"{where}: {problem}")
    return file


def _archived(path: Path, offset: int) -> io.BytesIO:
    """The WAV file that begins at a byte of a Kaldi archive (wav-copy), alone."""
    with path.open("rb") as archive:
        archive.seek(offset)
        header = archive.read(8)
        size = int.from_bytes(header[4:], "little")  # of what follows
        if header[:4] != b"RIFF" or len(header) < 8:
            raise ValueError(f"{path}:{offset}: no WAV file begins at this byte; make the archive again, or mend its "
                             "offsets in wav.scp")
        if offset + 8 + size > path.stat().st_size:
            raise ValueError(f"{path}:{offset}: truncated: the archive ends before the WAV file's {8 + size} bytes; "
                             "restore it")
        return io.BytesIO(header + archive.read(size))


def _hint(path: Path) -> str:
    """What to say besides of a file that libsndfile cannot read."""
    with path.open("rb") as file:
        shortened = b"embedded-shorten" in file.read(1024)
    return " (sph2pipe -f wav expands a shortened SPHERE file)" if shortened else ""


def _promises_more(path: Path, file: soundfile.SoundFile) -> bool:
    """Whether the header tells of more than the `file.frames` that libsndfile can read."""
    if file.format == "NIST":
        with path.open("rb") as header:
            count = re.search(rb"^sample_count -i (\d+)", header.read(1024), re.MULTILINE)
        return count is not None and int(count[1]) > file.frames
    if file.format == "OGG":
        return not _ends_as_ogg(path)
    # Only libsndfile's log knows what other headers say, in bytes: "data : 32000 (should be 15978)" of a WAV file.
    promised = re.search(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be", file.extra_info, re.MULTILINE)
    return promised is not None and int(promised[1]) < UNKNOWN_LENGTH


def _ends_as_ogg(path: Path) -> bool:
    """Whether an Ogg file ends with a whole page that says it is the last of its stream."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OGG_PAGE))
        tail = file.read()
    for page in re.finditer(rb"OggS\0(.).{20}(.)", tail, re.DOTALL):
        sizes = tail[page.end():page.end() + page[2][0]]  # of the segments that follow them
        if page.end() + len(sizes) + sum(sizes) == len(tail):
            return bool(page[1][0] & 4)
    return False


def _sample_range(where: str, file: soundfile.SoundFile, start: float | None, end: float | None) -> tuple[int, int]:
    """The first sample of a segment and the one after its last, at the file's own rate."""
    first = round((start or 0.0) * file.samplerate)
    last = file.frames if end is None else round(end * file.samplerate)
    if not 0 <= first < min(last, file.frames) or last > file.frames + MAX_OVERSHOOT * file.samplerate:
        raise ValueError(f"{where}: the segment from {start} to {end} s is not in the file, which has "
                         f"{file.frames / file.samplerate:.2f} s; mend it in `segments`")
    return first, min(last, file.frames)


@functools.cache  # so that a process logs each pair of rates once
def _notice_resampling(rate: int, sample_rate: int) -> None:
    log.warning("audio at %d Hz is resampled to %d Hz", rate, sample_rate)
