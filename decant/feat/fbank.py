"""Log-mel filterbank frames: computed as Kaldi does, kept in Kaldi archives, read back normalised.

The paper's input (section 4) is 40 log-mel coefficients every 10 ms. A feature folder holds
  feats.scp     frames of each utterance, not normalised, in archives under chunks/
  cmvn.scp      Kaldi's CMVN statistics of each speaker, float64 [2, F+1]: the sums and the number of frames,
                then the sums of squares and a 0
  utt2spk       the speaker of each utterance, as in the data directory
  fbank.toml    the FbankConfig
  unusable.txt  utterances without frames, each with the reason
Letters: N samples, T frames, F mel bins.
"""

import hashlib
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tomli_w
import torch

from decant.feat.archive import merge_scp, read_matrices, read_matrix, read_scp, write_matrices
from decant.feat.audio import read_audio
from decant.feat.data_dir import Utterance, at_speed, read_data_dir
from decant.feat.log_mel import log_mel, mel_banks
from decant.files import atomic_path
from decant.parallel import parallel_map
from decant.settings import config_field
from decant.text import byte_lines

CHUNK_SIZE = 100  # utterances computed and kept as one piece: what an interruption can lose, in each job
CHUNKS_A_JOB = 10  # fewer are not worth a process: it takes some seconds to start, and a chunk 0.2 s
VARIANCE_FLOOR = 0.01  # for normalisation; log-mel bins of speech vary by about 10


@dataclass(frozen=True)
class FbankConfig:
    """Filterbanks. The defaults are the paper's (section 4), else Kaldi's."""

    sample_rate: int = config_field(16000, "Hz; audio of another rate is resampled to it.")
    num_bins: int = config_field(40, "Mel bins.", paper=40)
    frame_length_ms: float = config_field(25.0, "The window of a frame, in ms.")
    frame_shift_ms: float = config_field(10.0, "The advance from frame to frame, in ms.", paper=10.0)
    low_freq: float = config_field(20.0, "Lower edge of the first bin, in Hz.")
    high_freq: float = config_field(
        0.0, "Upper edge of the last bin, in Hz; 0 or less is counted from half the sample rate.")
    snip_edges: bool = config_field(
        True, "Only frames whose window is inside the signal; false: a frame for each shift.")
    dither: float = config_field(
        0.0, "Standard deviation of added noise, in 16-bit steps; each utterance gets the same noise.")
    channel: int = config_field(-1, "The channel of audio files with several, counted from 0; -1: those are refused.")
    normalisation: str = config_field(
        "speaker", "Mean 0 and variance 1 are those of a speaker's frames or an utterance's: speaker, utterance, none.")

    def __post_init__(self) -> None:
        nyquist = self.sample_rate / 2
        top = self.high_freq if self.high_freq > 0 else nyquist + self.high_freq
        if not 0 <= self.low_freq < top <= nyquist:
            raise ValueError(f"low_freq {self.low_freq} and high_freq {self.high_freq} must give 0 <= low < high <= "
                             f"{nyquist} Hz, half of sample_rate")
        if not 0 < self.frame_shift_ms <= self.frame_length_ms or self.window < 2 or self.shift < 1:
            raise ValueError(f"frame_shift_ms {self.frame_shift_ms} must be at least a sample, and at most "
                             f"frame_length_ms {self.frame_length_ms}")
        if self.dither < 0 or self.channel < -1:
            raise ValueError(f"dither {self.dither} must be at least 0, and channel {self.channel} at least -1")
        if self.normalisation not in ("speaker", "utterance", "none"):
            raise ValueError(f"normalisation {self.normalisation!r} must be 'speaker', 'utterance' or 'none'")
        if self.num_bins < 4:
            raise ValueError(f"num_bins {self.num_bins} must be at least 4")

    @property
    def window(self) -> int:
        """Samples in the window of a frame."""
        return int(self.sample_rate * self.frame_length_ms * 0.001)

    @property
    def shift(self) -> int:
        """Samples from a frame to the next."""
        return int(self.sample_rate * self.frame_shift_ms * 0.001)


def fbank(samples: np.ndarray | torch.Tensor, config: FbankConfig) -> torch.Tensor:
    """Log-mel filterbank frames (natural log), not normalised: float32 [T, F] of samples [N] on the 16-bit scale.

    T is 1 + (N - window) // shift with snip_edges, (N + shift // 2) // shift without. Raises ValueError if N is
    less than a window, or if the samples are so large that frames are not finite.
    """
    if len(samples) < config.window:
        raise ValueError(f"{len(samples)} samples are fewer than a window of {config.window}; leave them out")
    banks = mel_banks(config.window, config.num_bins, config.sample_rate, config.low_freq, config.high_freq)
    with torch.random.fork_rng(devices=[], enabled=config.dither > 0):
        if config.dither > 0:
            torch.manual_seed(0)  # so that frames depend on nothing but samples and settings
        frames = log_mel(torch.as_tensor(samples, dtype=torch.float32), config.window, config.shift, banks,
                         config.snip_edges, config.dither)
    if not frames.isfinite().all():
        highest = float(torch.as_tensor(samples).abs().max())
        raise ValueError(f"samples of up to {highest:g}, where 16 bits end at 32768, give frames that are not finite; "
                         "make the file again")
    return frames


def cmvn_statistics(frames: np.ndarray) -> np.ndarray:
    """Kaldi's statistics for normalising frames [T, F], float64 [2, F+1]; those of utterances may be added up."""
    statistics = np.zeros((2, frames.shape[1] + 1))
    statistics[0, :-1] = frames.sum(axis=0, dtype=np.float64)
    statistics[0, -1] = len(frames)
    statistics[1, :-1] = np.square(frames, dtype=np.float64).sum(axis=0)
    return statistics


def normalise(frames: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """Frames [T, F] with the mean of the statistics taken off and divided by their standard deviation, float32.

    The variance is taken as at least 0.01, so that a bin that hardly varies, or a speaker of one frame, gives
    values near 0 and no NaN.
    """
    mean = statistics[0, :-1] / statistics[0, -1]
    variance = statistics[1, :-1] / statistics[0, -1] - mean**2
    deviation = np.sqrt(np.maximum(variance, VARIANCE_FLOOR))
    return (frames - mean.astype(np.float32)) / deviation.astype(np.float32)


def as_networks_see(frames: np.ndarray, normalisation: str, statistics: np.ndarray) -> np.ndarray:
    """Log-mel frames [T, F] normalised as FbankConfig has it; statistics: the speaker's."""
    if normalisation == "speaker":
        return normalise(frames, statistics)
    return normalise(frames, cmvn_statistics(frames)) if normalisation == "utterance" else frames


def compute_fbank_dir(data_dir: Path, out_dir: Path, config: FbankConfig, jobs: int,
                      transcribed: bool = True, speeds: Sequence[float] = ()) -> dict[str, str]:
    """Computes the feature folder `out_dir` of a data directory in `jobs` processes.

    Returns the utterances whose audio cannot be read or is shorter than a window, each with the reason, as in
    `unusable.txt`; the caller decides how many are too many. transcribed: as in read_data_dir. speeds: of the
    utterances' copies (decant.feat.data_dir.at_speed), which then take their place. The result does not depend on
    `jobs`. A run that was interrupted goes on at the first chunk that is not whole. Raises what reading the data
    directory does, and ValueError if no utterance has a frame.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    utterances = read_data_dir(data_dir, transcribed)
    if speeds:
        utterances = [at_speed(utterance, speed) for speed in sorted(speeds)
                      for utterance in utterances]  # sorted by id, as an archive has to be
    pieces = [utterances[first:first + CHUNK_SIZE] for first in range(0, len(utterances), CHUNK_SIZE)]
    # The name tells what is in a chunk, so that one of other settings or other audio is never taken for it.
    names = [f"{number:05d}-{_fingerprint(piece, config)}" for number, piece in enumerate(pieces)]
    chunks = [out_dir / "chunks" / name for name in names]
    (out_dir / "chunks").mkdir(parents=True, exist_ok=True)
    for old in set((out_dir / "chunks").iterdir()) - set(chunks):
        shutil.rmtree(old)
    todo = [(chunk, piece, config) for chunk, piece in zip(chunks, pieces, strict=True) if not chunk.exists()]
    jobs = min(jobs, -(-len(todo) // CHUNKS_A_JOB))
    for _ in parallel_map(_compute_chunk, todo, jobs, f"filterbanks of {data_dir.name}"):
        pass

    unusable: dict[str, str] = {}
    statistics: dict[str, np.ndarray] = {}
    for chunk in chunks:
        unusable |= read_unusable(chunk)
    parts = [chunk for chunk in chunks if (chunk / "feats.scp").stat().st_size > 0]
    if not parts:
        utterance, reason = next(iter(unusable.items()))
        raise ValueError(f"{data_dir}: none of {len(unusable)} utterances can be used; the first is {utterance}: "
                         f"{reason}")
    for part in parts:
        for speaker, more in read_matrices(part / "cmvn.scp"):
            statistics[speaker] = statistics.get(speaker, 0) + more
    write_matrices(out_dir / "cmvn", sorted(statistics.items()))
    _write_table(out_dir / "utt2spk", {utterance.id: utterance.speaker for utterance in utterances})
    write_unusable(out_dir, unusable)
    with atomic_path(out_dir / "fbank.toml") as path:
        path.write_text(tomli_w.dumps(asdict(config)))
    merge_scp([part / "feats.scp" for part in parts], out_dir / "feats.scp")
    return unusable


def load_features(
    features_dir: Path, utterance_ids: Iterable[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance-id, normalised frames float32 [T, F]) of a feature folder, or of some utterances in their order.

    Raises ValueError for an utterance that has no frames, and what the archives' readers raise.
    """
    features_dir = Path(features_dir)
    normalisation = read_fbank_config(features_dir).normalisation
    places = read_scp(features_dir / "feats.scp")
    speaker_of = read_speakers(features_dir)
    statistics = dict(read_matrices(features_dir / "cmvn.scp"))
    for utterance in places if utterance_ids is None else utterance_ids:
        if utterance not in places:
            reason = read_unusable(features_dir).get(utterance, "it is not in the data directory")
            raise ValueError(f"{features_dir}/feats.scp: no frames of utterance {utterance}: {reason}; leave it out")
        frames = read_matrix(places[utterance])
        check_finite(frames, features_dir, utterance)
        yield utterance, as_networks_see(frames, normalisation, statistics[speaker_of[utterance]])


def check_finite(frames: np.ndarray, features_dir: Path, utterance: str) -> None:
    """Raises ValueError for frames [T, F] of a feature folder that hold NaN or infinity."""
    if not np.isfinite(frames).all():
        bad = np.flatnonzero(~np.isfinite(frames).all(axis=1))[0]
        raise ValueError(f"{features_dir}/feats.scp: frame {bad} of utterance {utterance} is not finite; compute the "
                         "filterbanks again")


def read_speakers(features_dir: Path) -> dict[str, str]:
    """The speaker of each utterance of a feature folder."""
    return _read_table(features_dir / "utt2spk")


def read_unusable(features_dir: Path) -> dict[str, str]:
    """The utterances of a feature folder that have no frames, each with the reason."""
    return _read_table(features_dir / "unusable.txt")


def write_unusable(directory: Path, unusable: dict[str, str]) -> None:
    """Writes `unusable.txt`: an utterance and the reason a line."""
    _write_table(directory / "unusable.txt", unusable)


def read_fbank_config(directory: Path) -> FbankConfig:
    """The settings in the `fbank.toml` of a feature folder; raises ValueError if they are wrong."""
    path = Path(directory) / "fbank.toml"
    try:
        return FbankConfig(**tomllib.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def check_same_features(expected: FbankConfig, found: FbankConfig, where: str) -> None:
    """Raises ValueError, which names each setting that differs with both its values; `where` has `found`."""
    differences = [f"{name} is {getattr(found, name)!r}, not {value!r}"
                   for name, value in asdict(expected).items() if value != getattr(found, name)]
    if differences:
        raise ValueError(f"{where}: other feature settings than expected: {', '.join(differences)}; compute the "
                         "features with the same settings, or train with these")


def _fingerprint(utterances: Sequence[Utterance], config: FbankConfig) -> str:
    files = [utterance.audio.stat() for utterance in utterances]
    content = [(u.id, u.speaker, str(u.audio), u.start, u.end, u.speed, u.channel, u.offset, file.st_size,
                file.st_mtime_ns)
               for u, file in zip(utterances, files, strict=True)]
    return hashlib.sha256(repr((config, content)).encode()).hexdigest()[:16]


def _compute_chunk(chunk: Path, utterances: Sequence[Utterance], config: FbankConfig) -> None:
    """Writes a folder of some utterances' frames and statistics, and the unusable; it is whole or not there."""
    temporary = chunk.with_name(f".{chunk.name}")
    temporary.mkdir()
    unusable: dict[str, str] = {}
    statistics: dict[str, np.ndarray] = {}

    def frames() -> Iterator[tuple[str, np.ndarray]]:
        for utterance in utterances:
            try:
                features = _fbank_of(utterance, config)
            except (ValueError, OSError) as error:
                unusable[utterance.id] = " ".join(str(error).split())
                continue
            statistics[utterance.speaker] = statistics.get(utterance.speaker, 0) + cmvn_statistics(features)
            yield utterance.id, features

    write_matrices(temporary / "feats", frames())
    write_matrices(temporary / "cmvn", sorted(statistics.items()))
    write_unusable(temporary, unusable)
    temporary.rename(chunk)


def _fbank_of(utterance: Utterance, config: FbankConfig) -> np.ndarray:
    channel = None if config.channel < 0 else config.channel
    samples = read_audio(utterance.audio, config.sample_rate, utterance.start, utterance.end,
                         channel if utterance.channel is None else utterance.channel, utterance.speed, utterance.offset)
    if len(samples) < config.window:
        raise ValueError(f"{1000 * len(samples) / config.sample_rate:.1f} ms of audio are less than a window of "
                         f"{config.frame_length_ms} ms")
    return fbank(samples, config).numpy()


def _write_table(path: Path, table: dict[str, str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{key} {value}\n" for key, value in table.items()), encoding="utf-8")


def _read_table(path: Path) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (line.split(maxsplit=1) for line in byte_lines(path))}
