"""Soft targets as regularisers (paper, section 6): a network learns the hard labels of a small share of the data by
heart; the soft targets of one that saw all of it, on the same share, teach it most of what that one knows."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.table import Table

from decant.data_dir import original_id
from decant.files import atomic_path
from decant.frame_store import FrameStore
from decant.results import Summary, markdown_table, percent, read_list, summarize, summary, terminal_table
from decant.training import TrainingConfig


@dataclass(frozen=True)
class RegularizationConfig:
    share: float = 0.03  # of the training utterances (paper: 0.03)
    temperature: float = 5.0  # of the soft targets, which are the baseline's
    hard_label_weight: float = 0.0  # of the hard labels' cross-entropy beside them
    mixtures: bool = True  # soft targets on mixtures of two frames, new ones every epoch (decant.mixing); paper: false
    num_seeds: int = 3  # draws of the utterances, with a network each

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.temperature <= 0:
            raise ValueError(f"share is {self.share}, temperature {self.temperature}; a share is above 0 and below 1, "
                             "a temperature above 0")
        if self.hard_label_weight < 0 or self.num_seeds < 1:
            raise ValueError("hard_label_weight may not be negative, and num_seeds has to be at least 1")


@dataclass(frozen=True)
class HardRegularizationConfig(TrainingConfig):
    epochs: int = 10  # the best on dev is kept: early stopping
    batch_size: int = 64
    learning_rate: float = 5e-4


@dataclass(frozen=True)
class SoftRegularizationConfig(TrainingConfig):
    epochs: int = 60  # of few frames; they go on improving
    dev_epochs: int = 5  # dev may have more frames than they are
    batch_size: int = 256
    learning_rate: float = 4e-3


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


def share_of(store: FrameStore, share: float, seed: int) -> FrameStore:
    """A random share of a store's utterances, at least one, drawn anew for every seed; and their copies."""
    names = set(store.utterances)
    copies: dict[str, list[int]] = {}
    for number, utterance in enumerate(store.utterances):
        original = original_id(utterance)
        copies.setdefault(original if original in names else utterance, []).append(number)
    groups = list(copies.values())
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    drawn = order[:max(1, round(share * len(order)))].tolist()
    return store.select(sorted(number for at in drawn for number in groups[at]))


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
