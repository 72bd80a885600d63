"""Core-seconds that stage 2 takes for an hour of speech, beside torchaudio's transform of the same samples in memory.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/fbank_speed.py FOLDER --hours 3

names the audio files in and below a folder as often as makes up the hours, and runs the stage's program on them in one
process, as steps/stage.py does: from its start to files that are on disk and have their hashes. User's and system's
time; what of it is the transform, what reading audio, each measured by itself. The archive's frames are held against
torchaudio's.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torchaudio.compliance import kaldi

from decant.disk import sync_all
from decant.feat.archive import read_matrices
from decant.feat.audio import duration, read_audio
from decant.feat.data_dir import Utterance, write_data_dir
from decant.feat.fbank import FbankConfig, fbank
from steps.stage_record import hash_files

SUFFIXES = (".flac", ".wav", ".sph")
PEER_HOURS = 0.5  # of samples kept in memory


def named_often(folder: Path, hours: float) -> tuple[list[Utterance], float]:
    """Utterances of the folder's files, which come again under other names until there are so many hours; the hours."""
    files = [(path, duration(path) / 3600) for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise ValueError(f"{folder}: no {', '.join(SUFFIXES)} files are in or below it")
    utterances, total = [], 0.0
    for number, (path, length) in enumerate(cycle(files)):
        if total >= hours:
            return utterances, total
        speaker = f"{number // len(files):04d}-{path.parent.name}"
        utterances.append(Utterance(f"{speaker}-{number % len(files):06d}", speaker, path, ("A",)))
        total += length
    raise AssertionError("a cycle does not end")


def stage(exp: Path) -> tuple[float, float]:
    """Core-seconds of the stage's program and of what steps/stage.py does with its files."""
    out = exp / "fbank"
    out.mkdir()
    (out / "stage.toml").write_text("[fbank]\n[utterances]\n")
    # As steps/start.sh has them.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
    program = of_process([sys.executable, "steps/compute_fbank.py", "--exp", str(exp), "--out", str(out), "--jobs", "1",
                          "--device", "cpu", "--corpus", "", "--engine", "kaldi"], environment)
    started = time.process_time()
    hash_files(out)
    sync_all(out)
    return program, time.process_time() - started


def of_process(command: list[str], environment: dict[str, str]) -> float:
    """Core-seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def least(work: Callable[[], object], times: int = 3) -> float:
    """Core-seconds of the fastest of some calls."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def each(function: Callable, arguments: Iterable) -> None:
    for a in arguments:
        function(a)


def torchaudios(samples: np.ndarray) -> torch.Tensor:
    return kaldi.fbank(torch.from_numpy(samples)[None], num_mel_bins=FbankConfig().num_bins)


def difference(exp: Path, utterances: Sequence[Utterance]) -> float:
    """The most by which frames of the stage's archives are not torchaudio's."""
    frames = dict(read_matrices(exp / "fbank" / "train" / "feats.scp"))
    return max(float(np.abs(frames[u.id] - torchaudios(read_audio(u.audio, 16000)).numpy()).max()) for u in utterances)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=3.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    utterances, hours = named_often(given.folder.resolve(), given.hours)
    some, length = named_often(given.folder.resolve(), PEER_HOURS)
    with TemporaryDirectory() as folder:
        exp = Path(folder)
        write_data_dir(exp / "data" / "train", utterances)
        write_data_dir(exp / "data" / "dev", utterances[:1])
        program, files = stage(exp)
        apart = difference(exp, some)
    config = FbankConfig()
    start = min(of_process([sys.executable, "-c", "import steps.compute_fbank"], dict(os.environ)) for _ in range(3))
    samples = [read_audio(u.audio, config.sample_rate) for u in some]
    reading = least(lambda: each(lambda u: read_audio(u.audio, config.sample_rate), some)) / length
    own = least(lambda: each(lambda x: fbank(x, config), samples)) / length
    peer = least(lambda: each(torchaudios, samples)) / length
    total = (program + files) / hours
    print(f"{len(utterances)} utterances, {hours:.2f} hours; core-seconds an hour of speech:")
    print(f"  stage 2, all of it           {total:6.2f}   {3600 / total:,.0f} times real time")
    print(f"    its transform              {own:6.2f}   {own / total:.0%}")
    print(f"    audio files to samples     {reading:6.2f}   {reading / total:.0%}")
    print(f"    the program's start        {start / hours:6.2f}   {start:.1f} s, whatever the hours")
    print(f"    files hashed and synced    {files / hours:6.2f}")
    print(f"  torchaudio's transform alone {peer:6.2f}   the stage takes {total / peer:.2f} times as long, the stage's "
          f"transform {own / peer:.2f} times; frames differ by {apart:.1e} at most")


if __name__ == "__main__":
    main()
