"""What shuffling in pools of blocks costs beside a shuffle of all frames: in accuracy, in speed, in memory.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/block_shuffle.py accuracy --exp exp/an4 --epochs 1

trains stage 7's network of an experiment (its stages 0 to 6 are done) with every pool and seed, and prints the frame
accuracy on dev of its best epoch.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/block_shuffle.py speed --frames 100_000_000

reads minibatches of a store of so many frames of 40 bins, a sparse file of zeros: in pools, as trainings do, and all
shuffled, from the mapped file; each in a process of its own, whose peak memory it prints. With --cold it is a file of
random bytes (84 a frame) that the system has no part of in memory when a process begins: the disk's share shows.
"""

import argparse
import json
import logging
import multiprocessing
import os
import resource
import time
import tomllib
from itertools import islice
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np
import torch

from decant.disk import sync
from decant.experiment import Experiment
from decant.nnet.acoustic_model import AcousticModelConfig
from decant.nnet.blocks import POOL
from decant.nnet.frame_store import read_frame_store, training_frames
from decant.nnet.minibatches import Shuffled, minibatches
from decant.nnet.model_training import best_dev_accuracy, read_task, train_models
from decant.nnet.objectives import hard_labels
from decant.nnet.training import TrainingConfig

WINDOW = range(-20, 6)
UTTERANCE = 1200  # frames


def accuracy(given: argparse.Namespace) -> None:
    settings = tomllib.loads((given.exp / "config.toml").read_text())
    sizes, config = AcousticModelConfig(**settings["acoustic_model"]), TrainingConfig(
        **settings["training"] | {"epochs": given.epochs})
    experiment, cpu = Experiment(given.exp), torch.device("cpu")
    task = read_task(experiment.folder("alignment"), experiment.fbank("train"), cpu)
    store = read_frame_store(experiment.alignment("train"))
    objective = hard_labels(store, sizes.window, config.label_smoothing)
    print(f"{len(store)} frames, {given.epochs} epochs, minibatch {config.batch_size}", flush=True)
    for pool, block in given.pools:
        found = []
        for seed in given.seeds:
            with TemporaryDirectory() as folder:
                train_models(task, [task.new_model(sizes, seed)], [Shuffled(len(store), seed, pool, block)], objective,
                             config, [Path(folder) / "network"])
                found.append(100 * best_dev_accuracy(Path(folder) / "network"))
        spread = f" ± {stdev(found):.2f}" if len(found) > 1 else ""
        what = "all shuffled" if pool >= len(store) else \
            f"pools of {pool} (1/{len(store) / pool:.0f}), {pool // block} blocks of {block}"
        print(f"{what:<52} {mean(found):.2f}{spread}  ({', '.join(f'{x:.2f}' for x in found)})", flush=True)


def virtual_store(directory: Path, num_frames: int, cold: bool) -> None:
    """A store whose frames and labels are all 0, in files that take no disk; cold: of random bytes that do."""
    directory.mkdir()
    ends = np.minimum(np.arange(0, num_frames + UTTERANCE, UTTERANCE), num_frames)
    np.save(directory / "offsets.npy", ends)
    (directory / "utterances.txt").write_text("".join(f"u{n}\n" for n in range(len(ends) - 1)))
    for name, dtype, shape in (("frames", "<f2", (num_frames, 40)), ("pdfs", "<i4", (num_frames,))):
        with (directory / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
            size = num_frames * np.dtype(dtype).itemsize * int(np.prod(shape[1:]))
            if cold:
                random = np.random.default_rng(0)
                for first in range(0, size, 2**26):
                    file.write(random.bytes(min(2**26, size - first)))
            else:
                file.truncate(file.tell() + size)


def forget(directory: Path) -> None:
    """Asks the system to have no part of a folder's files in memory."""
    for path in directory.iterdir():
        sync(path)
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_minibatches(directory: Path, pool: int, seconds: float) -> dict[str, float]:
    """Frames a second and frames a second of the processor's, from the second minibatch on; how long the first one
    takes; memory beside that at the start."""
    torch.set_num_threads(1)
    before, started = memory(), time.perf_counter()
    store = training_frames(directory, torch.device("cpu"), WINDOW, pool)
    read = hard_labels(store, WINDOW).read
    indices = (index for _, index, _ in minibatches([Shuffled(len(store), 1, pool)], 512, 1, 0))
    read(next(indices), 0)
    first, frames, started = time.perf_counter() - started, 0, time.perf_counter()
    busy = time.process_time()
    for index in islice(indices, 10_000_000):
        read(index, 0)
        frames += len(index)
        if time.perf_counter() - started > seconds:
            break
    return {"rate": frames / (time.perf_counter() - started), "busy": frames / (time.process_time() - busy),
            "first": first, "memory": memory() - before}


def memory() -> int:
    """The most that this process has had so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def speed(given: argparse.Namespace) -> None:
    rates = []
    with TemporaryDirectory(dir=given.folder) as folder, multiprocessing.get_context("spawn").Pool(
            1, maxtasksperchild=1) as process:
        virtual_store(Path(folder) / "store", given.frames, given.cold)
        for what, pool in (("all shuffled, mapped", 2**62), (f"pools of {POOL}", POOL)):
            if given.cold:
                forget(Path(folder) / "store")
            found = process.apply(read_minibatches, (Path(folder) / "store", pool, given.seconds))
            rates.append(found["rate"])
            print(f"{given.frames} frames, {what}: {found['rate']:,.0f} frames/s ({found['busy']:,.0f} a CPU second), "
                  f"the first minibatch after {found['first']:.1f} s, {found['memory'] / 1e9:.2f} GB of memory",
                  flush=True)
    print(f"in pools: {rates[1] / rates[0]:.2f} times as many frames/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for_accuracy, for_speed = (commands.add_parser(run.__name__) for run in (accuracy, speed))
    for_accuracy.set_defaults(run=accuracy)
    for_accuracy.add_argument("--exp", type=Path, required=True)
    for_accuracy.add_argument("--epochs", type=int, default=1)
    for_accuracy.add_argument("--seeds", type=json.loads, default=[1, 2, 3])
    for_accuracy.add_argument("--pools", type=json.loads, help="[[pool, block], ...], in frames", default=[
        [2**40, 1], [2**17, 2**10], [2**15, 2**8], [2**15, 2**12], [2**13, 2**6], [2**13, 2**10]])
    for_speed.set_defaults(run=speed)
    for_speed.add_argument("--frames", type=int, default=100_000_000)
    for_speed.add_argument("--seconds", type=float, default=60.0, help="how long to read, for each of both")
    for_speed.add_argument("--cold", action="store_true", help="a file on disk, and none of it in memory")
    for_speed.add_argument("--folder", help="where the file is made; default: the system's for temporary files")
    logging.basicConfig(level=logging.WARNING)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
