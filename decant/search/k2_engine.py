"""k2 as the engine of a stage: runs decant.search.k2_command with the Python that has k2, in a scratch folder."""

import json
import logging
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from decant.feat.archive import read_int_vectors, write_matrices
from decant.hmm.alignment import LogLikelihoods, own_scores
from decant.hmm.topology import StateGraph
from decant.search.beam_search import Hypotheses, LatticeSearch, SearchConfig
from decant.search.lattice import Setting
from decant.search.state_graphs import acceptor, write_acceptors

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
MAX_FRAMES = 1_000_000  # of utterances whose log-likelihoods lie on disk at a time, to be aligned
MAX_BYTES = 2**31  # of log-likelihoods that lie on disk at a time, to be decoded


def find_python() -> Path:
    """The Python that has k2: $DECANT_K2_PYTHON, or else .venv-k2's. Raises FileNotFoundError that says how to."""
    python = Path(os.environ.get("DECANT_K2_PYTHON", ROOT / ".venv-k2" / "bin" / "python"))
    if not python.exists():
        raise FileNotFoundError(f"{python}: there is no Python with k2; make one by `make .venv-k2/installed`, or name "
                                "another that has k2 in the environment variable DECANT_K2_PYTHON")
    return python.absolute()


def check_python() -> None:
    """Raises ValueError with its error if the Python of `find_python` cannot import what the searches need."""
    try:
        run("--help")
    except ValueError as error:
        raise ValueError(f"{find_python()} cannot search with {error}; `make .venv-k2/installed` makes one that "
                         "can") from error


def run(*arguments: object) -> None:
    """Runs decant.search.k2_command; what it says goes into the log. Raises ValueError with its error."""
    command = [str(find_python()), "-m", "decant.search.k2_command", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DECANT_PARENT": str(os.getpid())}
    last = ""
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as process:
        for line in process.stderr or ():
            if line := line.rstrip():
                last = line
                log.info("k2: %s", line)
    if process.returncode:
        raise ValueError(f"k2: {last.removeprefix('error: ')} (exit status {process.returncode})")


def decode_grid(scored: Iterable[tuple[str, np.ndarray]], graph_dir: Path, settings: Sequence[Setting],
                config: SearchConfig, device: str, folder: Path) -> dict[Setting, Hypotheses]:
    """What decant.search.beam_search.decode_grid returns, found by k2; folder: for its files meanwhile, of at most
    MAX_BYTES of log-likelihoods at a time. Raises FileNotFoundError and ValueError."""
    grid = {setting: Hypotheses({}, ()) for setting in settings}
    weights, penalties = (sorted(set(values)) for values in zip(*settings, strict=True))
    lattice_beam, once = 1.0, []
    if isinstance(config, LatticeSearch):
        lattice_beam, once = config.lattice_beam, ["--search-lm-weight", config.lm_weight]
    rest = iter(scored)
    while part := list(_up_to(MAX_BYTES, rest)):
        with TemporaryDirectory(dir=folder, prefix=".") as scratch:
            out = Path(scratch, "decoded.json")
            write_matrices(Path(scratch, "x"), part)
            run("decode", "--scp", Path(scratch, "x.scp"), "--graph", graph_dir, "--lm-weight", *weights,
                "--word-insertion-penalty", *penalties, "--beam", config.beam, "--max-active", config.max_active,
                "--lattice-beam", lattice_beam, *once, "--device", device, "--out", out)
            decoded = json.loads(out.read_text(encoding="utf-8"))
        for found in decoded:
            setting = found["lm_weight"], found["word_insertion_penalty"]
            if setting in grid:
                before, utterances = grid[setting], found["utterances"]
                grid[setting] = Hypotheses(
                    before.words | {utterance: tuple(one["words"]) for utterance, one in utterances.items()},
                    before.partial + tuple(utterance for utterance, one in utterances.items() if one["partial"]))
    return grid


def _up_to(num_bytes: int, items: Iterator[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """The next items whose arrays have that many bytes together, or the next one."""
    for name, x in items:
        yield name, x
        num_bytes -= x.nbytes
        if num_bytes <= 0:
            return


def align(graphs: Mapping[str, StateGraph], features: Mapping[str, Tensor], log_likelihoods: LogLikelihoods,
          device: str, folder: Path) -> dict[str, np.ndarray | None]:
    """The best path's pdf-ids (int64 [T]) of every utterance, found by k2; None where no path reaches the end.

    features: of every utterance, sorted by name, what `log_likelihoods` takes. folder: for its files meanwhile.
    """
    paths: dict[str, np.ndarray | None] = {}
    for part in _parts(features):
        own = {utterance: np.unique(graphs[utterance].pdfs, return_inverse=True) for utterance in part}
        width = max(len(pdfs) for pdfs, _ in own.values())  # a matrix has as many columns as the file says pdf-ids

        def scores(part: Sequence[str] = part, width: int = width) -> Iterator[tuple[str, np.ndarray]]:
            for utterance in part:
                x = own_scores(graphs[utterance], features[utterance], log_likelihoods)[1].numpy()
                yield utterance, np.pad(x, ((0, 0), (0, width - x.shape[1])))

        with TemporaryDirectory(dir=folder, prefix=".") as scratch:
            write_matrices(Path(scratch, "scores"), scores())
            write_acceptors(Path(scratch, "graphs.npz"), {
                utterance: acceptor(replace(graphs[utterance], pdfs=places)) for utterance, (_, places) in own.items()
            }, width)
            run("align", "--scp", Path(scratch, "scores.scp"), "--graphs", Path(scratch, "graphs.npz"),
                "--device", device, "--out", Path(scratch, "ali"))
            found = dict(read_int_vectors(Path(scratch, "ali.scp")))
        paths |= {utterance: own[utterance][0][found[utterance]] if utterance in found else None for utterance in part}
    return paths


def _parts(features: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """The utterances in order, in parts of at most MAX_FRAMES frames (or one utterance)."""
    part: list[str] = []
    frames = 0
    for utterance, x in features.items():
        if part and frames + len(x) > MAX_FRAMES:
            yield part
            part, frames = [], 0
        part.append(utterance)
        frames += len(x)
    if part:
        yield part
