"""Stage 14: the tables of results.json and regularization.json, on the terminal and as Markdown."""

from rich.console import Console

from decant.feat.fbank import read_unusable
from decant.files import atomic_path
from decant.score.g2p_results import g2p_notes
from decant.score.regularization_results import read_regularization, regularization_markdown, regularization_table
from decant.score.results import read_comparisons, read_results, results_markdown, results_table
from steps.stage_program import Stage, run_step


def main(stage: Stage) -> None:
    experiment = stage.experiment
    rows, comparisons = read_results(experiment.results), read_comparisons(experiment.comparisons)
    left_out = {split: read_unusable(experiment.alignment(split)) for split in experiment.splits("alignment")}
    notes = [f"{len(unusable)} utterances of {split} have no frame accuracy (alignment/{split}/unusable.txt says why)."
             for split, unusable in left_out.items() if unusable]
    if experiment.g2p_results.exists():
        notes += g2p_notes(experiment.g2p_results)
    shown, written = [results_table(rows, comparisons), *notes], results_markdown(rows, comparisons)
    written += "".join(f"- {note}\n" for note in notes)
    if experiment.regularization_results.exists():
        small_share = read_regularization(experiment.regularization_results)
        shown += ["", regularization_table(small_share)]
        written += "\n" + regularization_markdown(small_share)
    with atomic_path(stage.out / "RESULTS.md") as path:
        path.write_text(written, encoding="utf-8")
    Console().print(*shown, sep="\n")


if __name__ == "__main__":
    run_step(main)
