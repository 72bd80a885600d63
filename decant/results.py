"""The results of an experiment: the rows of results.json, the retained gain, and tables for people.

Everything shown is drawn from the rows alone, beside the paper's own figures (section 4, table 1). Rates are
fractions in the rows and per cent in the tables.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from decant.files import atomic_path

SYSTEMS = ("monophone", "triphone", "triphone_lda", "triphone_sat", "baseline", "ensemble", "student", "generalist",
           "specialists", "poured_back")  # in the order in which tables show them
UNKNOWN = "-"


@dataclass(frozen=True)
class ResultRow:
    """What one run of one system reached on one split; None stands for what was not measured."""

    system: str  # one of SYSTEMS
    split: str  # "dev" or "test"
    chosen: bool  # whether dev chose this variant of the system; true where there is one variant
    variant: str = ""  # what else distinguishes the row, such as "temperature 2"
    seed: int | None = None  # of a baseline: the ensemble's member; of a student: the run
    frames: int | None = None
    frame_accuracy: float | None = None
    words: int | None = None  # in the references
    wer: float | None = None
    wer_low: float | None = None  # 95% interval
    wer_high: float | None = None
    parameters: int | None = None  # numbers that training sets
    seconds: float | None = None  # wall clock of the training
    lm_weight: float | None = None
    word_insertion_penalty: float | None = None
    config: str | None = None  # the resolved config's file, relative to the experiment folder

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise ValueError(f"system is {self.system!r}; it has to be one of {', '.join(SYSTEMS)}")

    @property
    def sort_key(self) -> tuple:
        """By system, variant, split and seed: what no two rows may share."""
        return SYSTEMS.index(self.system), self.variant, self.split, -1 if self.seed is None else self.seed


PAPER = [
    ResultRow("baseline", "test", chosen=True, frame_accuracy=0.589, wer=0.109, parameters=85_000_000),
    ResultRow("ensemble", "test", chosen=True, frame_accuracy=0.611, wer=0.107),
    ResultRow("student", "test", chosen=True, frame_accuracy=0.608, wer=0.107),
]


@dataclass(frozen=True)
class Summary:
    """A figure over several runs."""

    mean: float
    spread: float | None  # sample standard deviation; None for a single run
    runs: int


def write_results(path: Path, rows: Iterable[ResultRow]) -> None:
    """Write results.json: a list of rows in a fixed order, the keys sorted, so that equal results are equal files.

    Raises ValueError if two rows share system, variant, split and seed, or a figure is not a number.
    """
    rows = sorted(rows, key=lambda row: row.sort_key)
    for row, following in zip(rows, rows[1:], strict=False):
        if row.sort_key == following.sort_key:
            raise ValueError(f"{path}: two rows for {row.system} {row.variant!r}, split {row.split}, seed {row.seed}; "
                             "give them different variants or seeds")
    text = json.dumps([asdict(row) for row in rows], indent=1, sort_keys=True, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_results(path: Path) -> list[ResultRow]:
    """The rows of results.json. Raises ValueError naming the file if it is damaged or a row's fields are others."""
    try:
        return [ResultRow(**row) for row in json.loads(Path(path).read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: no list of results ({error}); decode and score again (stage 13)") from error


def summarize(values: Sequence[float]) -> Summary | None:
    """Mean and spread; None if there are no values."""
    if not values:
        return None
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def retained_gain(rows: Iterable[ResultRow], figure: str) -> Summary | None:
    """(student - baselines) / (ensemble - baselines) on test, over the runs of the chosen student.

    figure: "frame_accuracy" or "wer"; "baselines" is the mean of the ensemble's members. 1 is all of what the
    ensemble gains. None where that is undefined: a system is missing, or the ensemble is no better.
    """
    found = {system: [] for system in ("baseline", "ensemble", "student")}
    for row in rows:
        value = getattr(row, figure)
        if row.system in found and row.split == "test" and row.chosen and value is not None:
            found[row.system].append(value)
    if not all(found.values()):
        return None
    baseline = statistics.fmean(found["baseline"])
    gain = statistics.fmean(found["ensemble"]) - baseline
    if (-gain if figure == "wer" else gain) <= 0:
        return None
    return summarize([(value - baseline) / gain for value in found["student"]])


def results_table(rows: Sequence[ResultRow]) -> Table:
    """The results for a terminal."""
    table = Table(title="Results", caption="\n".join(_notes(rows)), caption_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("system", "variant") else "right")
    for cells in _table_cells(rows):
        table.add_row(*cells)
    return table


def results_markdown(rows: Sequence[ResultRow]) -> str:
    """The results for RESULTS.md."""
    lines = [_COLUMNS, ["---" if column in ("system", "variant") else "---:" for column in _COLUMNS]]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in [*lines, *_table_cells(rows)])
    return table + "\n\n" + "\n".join(f"- {note}" for note in _notes(rows)) + "\n"


_COLUMNS = ("system", "variant", "runs", "frame accuracy, dev", "frame accuracy, test", "WER, dev", "WER, test",
            "95% interval", "LM weight", "parameters", "seconds", "the paper, test")


def _table_cells(rows: Sequence[ResultRow]) -> list[tuple[str, ...]]:
    """A line of the table for each variant of a system, in the order of SYSTEMS."""
    groups: dict[tuple[str, str], list[ResultRow]] = {}
    for row in sorted(rows, key=lambda row: row.sort_key):
        groups.setdefault((row.system, row.variant), []).append(row)
    lines = []
    for (system, variant), group in groups.items():
        dev, test = ([row for row in group if row.split == split] for split in ("dev", "test"))
        chosen = group[0].chosen
        rivals = sum(other == system for other, _ in groups) > 1
        low, high = _summary(test, "wer_low"), _summary(test, "wer_high")
        parameters, seconds = _summary(group, "parameters"), _summary(group, "seconds")
        paper = [row for row in PAPER if row.system == system and chosen]
        lines.append((
            system,
            f"{variant} *".strip() if chosen and rivals else variant,
            str(max(len(dev), len(test))),
            *(_percent(_summary(part, figure)) for figure in ("frame_accuracy", "wer") for part in (dev, test)),
            f"{_percent(low)} to {_percent(high)}" if low and high else UNKNOWN,
            ", ".join(f"{weight:g}" for weight in sorted({row.lm_weight for row in group} - {None})) or UNKNOWN,
            f"{parameters.mean:,.0f}" if parameters else UNKNOWN,
            f"{seconds.mean:.0f}" if seconds else UNKNOWN,
            ", ".join(f"{_percent(_summary(paper, 'frame_accuracy'))}, WER {_percent(_summary(paper, 'wer'))}"
                      for _ in paper),
        ))
    return lines


def _notes(rows: Sequence[ResultRow]) -> list[str]:
    """What a reader of the table has to know, and the retained gains."""
    notes = [
        "± is the standard deviation over the runs; a figure without it is that of a single run.",
        "The interval comes from a bootstrap over utterances; several runs have the mean of their intervals' ends.",
        "* is what dev chose among a system's variants.",
    ]
    for figure, name in (("frame_accuracy", "frame accuracy"), ("wer", "WER")):
        gain, paper = retained_gain(rows, figure), _percent(retained_gain(PAPER, figure), digits=0)
        if gain:
            runs = f"{gain.runs} runs" if gain.runs > 1 else "one run"
            notes.append(f"Retained gain in {name}: {_percent(gain, digits=0)} ({runs}; the paper: {paper}).")
        else:
            notes.append(f"Retained gain in {name}: undefined, for it needs a baseline, an ensemble that is better, "
                         f"and a student on test (the paper: {paper}).")
    return notes


def _summary(rows: Iterable[ResultRow], figure: str) -> Summary | None:
    return summarize([value for row in rows if (value := getattr(row, figure)) is not None])


def _percent(summary: Summary | None, digits: int = 1) -> str:
    if summary is None:
        return UNKNOWN
    spread = "" if summary.spread is None else f" ± {100 * summary.spread:.{digits}f}"
    return f"{100 * summary.mean:.{digits}f}{spread}%"
