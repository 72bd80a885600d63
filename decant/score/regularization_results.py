"""What soft targets keep of the accuracy that a small share of the data loses (paper, section 6), and its table."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.table import Table

from decant.distill.regularization import RegularizationConfig, share_of
from decant.experiment import Experiment
from decant.files import atomic_path
from decant.nnet.acoustic_model import load_model
from decant.nnet.frame_store import read_frame_store
from decant.nnet.training import accuracy_and_loss
from decant.score.results import Summary, markdown_table, percent, read_list, summarize, summary, terminal_table


@dataclass(frozen=True)
class RegularizationRow:
    """The frame accuracies of one network. train: on the frames that it was trained on."""

    share: float  # of the training utterances
    targets: str  # hard; soft; or soft on mixtures
    seed: int
    train: float
    dev: float | None  # at the epoch that was best on dev, whose weights all of these are of but dev_last
    dev_last: float | None  # at the last epoch
    test: float


PAPER = (
    RegularizationRow(1.0, "hard", 0, 0.634, None, None, 0.589),
    RegularizationRow(0.03, "hard", 0, 0.673, None, None, 0.445),
    RegularizationRow(0.03, "soft", 0, 0.654, None, None, 0.570),
)


def regularization_rows(experiment: Experiment, config: RegularizationConfig, test: str,
                        device: torch.device) -> Iterator[RegularizationRow]:
    """The frame accuracies, on a test set, of the baseline and of every network of stage 11; that on training frames
    is, of the baseline, on the utterances of the first draw."""
    store, on_test = (read_frame_store(experiment.alignment(split)) for split in ("train", test))
    on_test = on_test.to(device)

    def row(folder: Path, share: float, targets: str, seed: int) -> RegularizationRow:
        model = load_model(folder)[0].to(device)
        dev = [epoch["dev_frame_accuracy"] for epoch in json.loads((folder / "history.json").read_text())]
        drawn = share_of(store, config.share, seed).to(device)
        train, test = (accuracy_and_loss(model, frames)[0].item() for frames in (drawn, on_test))
        return RegularizationRow(share, targets, seed, train, max(dev), dev[-1], test)

    yield row(experiment.member(1), 1.0, "hard", 1)
    for seed in range(1, config.num_seeds + 1):
        for targets in ("hard", "soft"):
            yield row(experiment.regularized(targets, seed), config.share,
                      "soft on mixtures" if targets == "soft" and config.mixtures else targets, seed)


def write_regularization(path: Path, rows: Iterable[RegularizationRow]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read_regularization(path: Path) -> list[RegularizationRow]:
    """The rows. Raises ValueError naming the file if it holds anything else."""
    return read_list(path, RegularizationRow, "frame accuracies")


def recovered(rows: Sequence[RegularizationRow]) -> Summary | None:
    """(soft - hard) / (all of the data - hard) on test, over the seeds: how much of what a small share's hard labels
    lose its soft targets keep. None where hard labels lose nothing."""
    [whole] = [row.test for row in rows if row.share == 1]
    hard = {row.seed: row.test for row in rows if row.share < 1 and row.targets == "hard"}
    soft = {row.seed: row.test for row in rows if row.share < 1 and row.targets != "hard"}
    return summary([(soft[seed] - hard[seed]) / (whole - hard[seed]) for seed in hard if whole - hard[seed] > 1e-9])


COLUMNS = ("training\ndata", "targets", "runs", "frame\naccuracy,\ntrain %", "dev %,\nbest epoch",
           "dev %,\nlast epoch", "test %")


def table_cells(rows: Sequence[RegularizationRow], whose: str = "") -> list[tuple[str, ...]]:
    """A line for all data, and one for each kind of targets on the small share."""
    lines = []
    for share, targets in dict.fromkeys((row.share, row.targets) for row in sorted(rows, key=lambda row: -row.share)):
        runs = [row for row in rows if (row.share, row.targets) == (share, targets)]
        figures = (percent(summarize(runs, figure)) for figure in ("train", "dev", "dev_last", "test"))
        lines.append((f"{100 * share:g}%", targets + whose, str(len(runs)), *figures))
    return lines


def _lines_and_notes(rows: Sequence[RegularizationRow]) -> tuple[list[tuple[str, ...]], list[str]]:
    kept = f"keep {percent(found, digits=0)}%" if (found := recovered(rows)) else "keep nothing: hard labels lose none"
    note = (f"Of the test accuracy that hard labels lose on the small share, its soft targets {kept}. The paper: "
            f"{percent(recovered(PAPER), digits=0)}%.")
    return table_cells(rows) + table_cells(PAPER, ", the paper's"), [note]


def regularization_table(rows: Sequence[RegularizationRow]) -> Table:
    """The paper's three rows (section 6), for a terminal."""
    return terminal_table(COLUMNS, *_lines_and_notes(rows))


def regularization_markdown(rows: Sequence[RegularizationRow]) -> str:
    """The same for RESULTS.md."""
    return markdown_table(COLUMNS, *_lines_and_notes(rows))
