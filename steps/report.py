"""Stage 14: the table of results.json, on the terminal and as Markdown."""

from rich.console import Console

from decant.files import atomic_path
from decant.results import read_results, results_markdown, results_table
from steps.common import Stage, run_step


def main(stage: Stage) -> None:
    rows = read_results(stage.exp / "score" / "results.json")
    with atomic_path(stage.out / "RESULTS.md") as path:
        path.write_text(results_markdown(rows), encoding="utf-8")
    Console(width=None).print(results_table(rows))


if __name__ == "__main__":
    run_step(main)
