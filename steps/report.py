"""Stage 14: the tables of results.json and regularization.json, on the terminal and as Markdown."""

from rich.console import Console

from decant.feat.fbank import read_unusable
from decant.files import atomic_path
from decant.score.regularization_results import read_regularization, regularization_markdown, regularization_table
from decant.score.results import read_comparisons, read_results, results_markdown, results_table
from steps.common import SPLITS, Stage, run_step


def main(stage: Stage) -> None:
    rows = read_results(stage.exp / "score" / "results.json")
    comparisons = read_comparisons(stage.exp / "score" / "comparisons.json")
    small_share = read_regularization(stage.exp / "score" / "regularization.json")
    left_out = {split: read_unusable(stage.exp / "alignment" / split) for split in SPLITS}
    notes = [f"{len(unusable)} utterances of {split} have no frame accuracy (alignment/{split}/unusable.txt says why)."
             for split, unusable in left_out.items() if unusable]
    with atomic_path(stage.out / "RESULTS.md") as path:
        path.write_text(results_markdown(rows, comparisons) + "".join(f"- {note}\n" for note in notes) + "\n" +
                        regularization_markdown(small_share), encoding="utf-8")
    Console().print(results_table(rows, comparisons), *notes, "", regularization_table(small_share), sep="\n")


if __name__ == "__main__":
    run_step(main)
