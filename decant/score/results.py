"""The results of an experiment: the rows of results.json, the retained gain, and tables for people.

Everything shown is drawn from the rows alone, beside the paper's own figures (section 4). Rates are fractions
in the rows and per cent in the tables.
"""

import itertools
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table

from decant.experiment import SYSTEMS
from decant.files import atomic_path

UNKNOWN = "-"

@dataclass(frozen=True)
class ResultRow:
    """What one run of one system reached on one split; None stands for what was not measured."""

    system: str  # one of decant.experiment.SYSTEMS
    split: str  # "dev", or a test set: "test", or several such as "test_clean"
    chosen: bool  # whether dev chose this variant of the system; true where there is one variant
    variant: str = ""  # what else distinguishes the row, in words: temperature and generation
    seed: int | None = None  # of a baseline: the ensemble's member; of a student: the run
    temperature: float | None = None  # of the soft targets that a student learned
    generation: int | None = None  # of a student: 1 learned from the ensemble, later ones from students
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
    rescored_wer: float | None = None  # with a larger language model, and what dev chose for it
    rescored_wer_low: float | None = None
    rescored_wer_high: float | None = None
    rescored_lm_weight: float | None = None
    rescored_word_insertion_penalty: float | None = None
    config: str | None = None  # the resolved config's file, relative to the experiment folder

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise ValueError(f"system is {self.system!r}; it has to be one of {', '.join(SYSTEMS)}")

    @property
    def sort_key(self) -> tuple:
        """What no two rows may share; runs of a system by temperature, generation, split and seed."""
        numbers = (-1 if x is None else x for x in (self.temperature, self.generation, self.seed))
        temperature, generation, seed = numbers
        return SYSTEMS.index(self.system), temperature, generation, self.variant, self.split, seed


@dataclass(frozen=True)
class Comparison:
    """A figure of one system less that of another on the same utterances of a test set, as fractions; of several runs,
    of their means. low, high: the 95% interval of decant.score.scoring.paired_difference."""

    system: str
    against: str
    figure: str  # of FIGURES
    difference: float
    low: float
    high: float
    split: str = "test"


FIGURES = {"frame_accuracy": "frame accuracy", "wer": "WER", "rescored_wer": "WER, larger LM"}
COMPARED = (("ensemble", "baseline"), ("student", "baseline"), ("student", "ensemble"))

PAPER = tuple(
    ResultRow(system, "test", chosen=True, variant="the paper's", frame_accuracy=frame_accuracy, wer=wer)
    for system, frame_accuracy, wer in (
        ("baseline", 0.589, 0.109), ("ensemble", 0.611, 0.107), ("student", 0.608, 0.107)
    )
)


@dataclass(frozen=True)
class Summary:
    """A figure over several runs."""

    mean: float
    spread: float | None  # sample standard deviation; None for a single run
    runs: int


def write_comparisons(path: Path, comparisons: Iterable[Comparison]) -> None:
    """Write comparisons.json, a list."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps([asdict(comparison) for comparison in comparisons], indent=1) + "\n")


def read_comparisons(path: Path) -> list[Comparison]:
    """The comparisons of comparisons.json. Raises ValueError naming the file if it holds anything else."""
    return read_list(path, Comparison, "comparisons")


def write_results(path: Path, rows: Iterable[ResultRow]) -> None:
    """Write results.json, a list of rows; rows and keys are sorted, so that equal results are equal files.

    Raises ValueError if two rows share system, variant, split and seed, or a figure is not finite.
    """
    rows = sorted(rows, key=lambda row: row.sort_key)
    for row, following in itertools.pairwise(rows):
        if row.sort_key == following.sort_key:
            raise ValueError(f"{path}: two rows for {row.system} {row.variant!r}, split {row.split}, seed "
                             f"{row.seed}; give them different variants or seeds")
    text = json.dumps([asdict(row) for row in rows], indent=1, sort_keys=True, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_results(path: Path) -> list[ResultRow]:
    """The rows of results.json. Raises ValueError naming the file if it holds anything else."""
    return read_list(path, ResultRow, "results")


def read_list(path: Path, kind: type, name: str) -> list:
    """The list of a file that stage 13 wrote. Raises ValueError naming the file if it holds anything else."""
    try:
        return [kind(**entry) for entry in json.loads(Path(path).read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a list of {name} ({error}); run stage 13 again") from error


def summarize(rows: Iterable, figure: str) -> Summary | None:
    """Mean and spread of a field of the rows, those aside where it is None; None if no row has it."""
    return summary([value for row in rows if (value := getattr(row, figure)) is not None])


def retained_gain(rows: Iterable[ResultRow], figure: str, split: str = "test") -> Summary | None:
    """(student - baseline) / (ensemble - baseline) on a test set: 1 is all of what the ensemble gains.

    figure: of FIGURES. Over the runs of the chosen student; the baseline is the mean of the
    ensemble's members. None where the gain is undefined: a system is missing, or the ensemble is not better.
    """
    test = [row for row in rows if row.split == split and row.chosen]
    baseline, ensemble = (summarize([row for row in test if row.system == system], figure)
                          for system in ("baseline", "ensemble"))
    if baseline is None or ensemble is None:
        return None
    gain = ensemble.mean - baseline.mean
    if (gain if figure == "frame_accuracy" else -gain) < 1e-9:  # no gain but the last digit's
        return None
    students = [getattr(row, figure) for row in test if row.system == "student"]
    return summary([(student - baseline.mean) / gain for student in students if student is not None])


def splits_tested(rows: Iterable[ResultRow]) -> list[str]:
    """The test sets of the rows, or the one that there is by default."""
    return sorted({row.split for row in rows} - {"dev"}) or ["test"]


def results_table(rows: Sequence[ResultRow], comparisons: Sequence[Comparison] = ()) -> Group:
    """The results for a terminal, which has no room for all columns: a table for each test set."""
    tests, tables = splits_tested(rows), []
    for split in tests:
        columns = _columns([split], has_larger(rows))
        shown = [column not in ("WER,\ndev %", "LM\nweight", "parameters", "seconds") for column in columns]
        cells = _table_cells([row for row in rows if row.split in ("dev", split)], [split], has_larger(rows))
        headings = (column.replace("_", "_\n") for column in itertools.compress(columns, shown))  # of long names
        tables.append(terminal_table(tuple(headings),
                                     [tuple(itertools.compress(line, shown)) for line in cells],
                                     _notes(rows, comparisons, tests) if split == tests[-1] else []))
    return Group(*tables)


def results_markdown(rows: Sequence[ResultRow], comparisons: Sequence[Comparison] = ()) -> str:
    """The results for RESULTS.md."""
    tests = splits_tested(rows)
    return markdown_table(_columns(tests, has_larger(rows)), _table_cells(rows, tests, has_larger(rows)),
                          _notes(rows, comparisons, tests))


def has_larger(rows: Iterable[ResultRow]) -> bool:
    """Whether lattices were scored again with a larger language model."""
    return any(row.rescored_wer is not None for row in rows)


def terminal_table(columns: Sequence[str], lines: Iterable[Sequence[str]], notes: Sequence[str]) -> Table:
    """A table with notes below it, the first two columns of text; +- for ± where stdout's encoding has none."""
    def shown(text: str) -> str:
        try:
            "±".encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:
            return text.replace("±", "+-")
        return text

    table = Table(box=box.SIMPLE_HEAD, padding=0, caption=shown("\n".join(notes)), caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    for cells in lines:
        table.add_row(*map(shown, cells))
    return table


def markdown_table(columns: Sequence[str], lines: Iterable[Sequence[str]], notes: Sequence[str]) -> str:
    """The same in Markdown."""
    heading = [column.replace("\n", " ") for column in columns]
    rule = ["---" if number < 2 else "---:" for number in range(len(columns))]
    rows = [f"| {' | '.join(cells)} |" for cells in (heading, rule, *lines)]
    return "\n".join([*rows, "", *(f"- {note}" for note in notes), ""])


def _columns(tests: Sequence[str], larger: bool) -> tuple[str, ...]:
    """larger: with columns for the larger language model."""
    wers = [[f"WER,\n{split} %", "95%\ninterval", *[f"larger LM,\n{split} %", "95%\ninterval"] * larger]
            for split in tests]
    return ("system", "variant", "runs", *(f"frame\naccuracy,\n{split} %" for split in ("dev", *tests)), "WER,\ndev %",
            *itertools.chain(*wers), "LM\nweight", "parameters", "seconds")


def _table_cells(rows: Sequence[ResultRow], tests: Sequence[str], larger: bool) -> list[tuple[str, ...]]:
    """A line of the table for each variant of a system, in the order of SYSTEMS, and the paper's three, whose figures
    stand under the first test set."""
    groups: dict[tuple[str, str], list[ResultRow]] = {}
    paper = [replace(row, split=tests[0]) for row in PAPER]
    for row in [*sorted(rows, key=lambda row: row.sort_key), *paper]:
        groups.setdefault((row.system, row.variant), []).append(row)
    num_variants = Counter(system for system, _ in dict.fromkeys((row.system, row.variant) for row in rows))
    lines = []
    for (system, variant), group in groups.items():
        of_split = {split: [row for row in group if row.split == split] for split in ("dev", *tests)}
        mark = " *" if group[0].chosen and group[0] not in paper and num_variants[system] > 1 else ""
        weights = sorted({row.lm_weight for row in group if row.lm_weight is not None})
        parameters, seconds = summarize(group, "parameters"), summarize(group, "seconds")
        wers = []
        for split, figure in itertools.product(tests, ["wer", *["rescored_wer"] * larger]):
            low, high = (summarize(of_split[split], f"{figure}_{end}") for end in ("low", "high"))
            wers += [percent(summarize(of_split[split], figure)),
                     f"{100 * low.mean:.1f} to {100 * high.mean:.1f}" if low and high else UNKNOWN]
        lines.append((
            system,
            variant + mark,
            str(max(map(len, of_split.values()))),
            *(percent(summarize(runs, "frame_accuracy")) for runs in of_split.values()),
            percent(summarize(of_split["dev"], "wer")),
            *wers,
            ", ".join(f"{weight:g}" for weight in weights) or UNKNOWN,
            f"{parameters.mean:,.0f}" if parameters else UNKNOWN,
            f"{seconds.mean:.0f}" if seconds else UNKNOWN,
        ))
    return lines


def _notes(rows: Sequence[ResultRow], comparisons: Sequence[Comparison], tests: Sequence[str]) -> list[str]:
    """What a reader of the table has to know, and the retained gains."""
    notes = [
        "±: standard deviation over the runs; a figure without it is one run's.",
        "95% interval: a bootstrap over utterances; of several runs, the mean of each end.",
        "*: what dev chose among a system's variants.",
    ]
    if has_larger(rows):
        notes.append("larger LM: lattices scored with another language model, at a weight and a penalty of their own.")
    for split, (figure, name) in itertools.product(tests, FIGURES.items()):
        if figure == "rescored_wer" and not has_larger(rows):
            continue
        gain, paper = retained_gain(rows, figure, split), retained_gain(PAPER, figure.removeprefix("rescored_"))
        if gain:
            found = f"{percent(gain, digits=0)}% ({'one run' if gain.runs == 1 else f'{gain.runs} runs'})"
        else:
            found = f"undefined (the ensemble is not better than the baseline on {split}, or one is missing)"
        where = f" on {split}" if len(tests) > 1 else ""
        notes.append(f"Retained gain in {name}{where}: {found}. The paper: {percent(paper, digits=0)}%.")
    for system, against, split in dict.fromkeys((c.system, c.against, c.split) for c in comparisons):
        found = ", ".join(
            f"{FIGURES[c.figure]} {100 * c.difference:+.1f} "
            f"({100 * c.low:+.1f} to {100 * c.high:+.1f})"
            for c in comparisons if (c.system, c.against, c.split) == (system, against, split))
        notes.append(f"{system} less {against}, 95% interval of a paired bootstrap over {split}'s utterances: {found}.")
    return notes


def summary(values: Sequence[float]) -> Summary | None:
    """Mean and spread of some values; None if there are none."""
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), spread, len(values))


def percent(found: Summary | None, digits: int = 1) -> str:
    """A cell of a table: mean ± spread in per cent."""
    if found is None:
        return UNKNOWN
    spread = "" if found.spread is None else f" ± {100 * found.spread:.{digits}f}"
    return f"{100 * found.mean:.{digits}f}{spread}"
