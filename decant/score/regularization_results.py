"""What soft targets keep of the accuracy that a small share of the data loses (paper, section 6), and its table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from decant.files import atomic_path
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
