import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*.md")])


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    lines = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{link} leads to nothing"
        assert not anchor or anchor in headings(target), f"{link}: no such heading"


def test_readme_has_at_most_130_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("page", sorted(ROOT.glob("recipes/*/RESULTS.md")), ids=lambda page: page.parent.name)
def test_a_page_of_results_has_at_most_100_lines(page):
    assert len(page.read_text().splitlines()) <= 100


def test_from_paper_to_code_names_stages_and_functions_that_are_there():
    rows = re.findall(r"^\| .* \| `(\d+ \w+)` \| `(decant/[\w/]+\.py)`: `(\w+)` \|$", (ROOT / "README.md").read_text(),
                      flags=re.MULTILINE)
    stages = (ROOT / "steps/stages.sh").read_text()
    assert rows
    for stage, file, name in rows:
        assert f"\nstage {stage} " in stages, stage
        assert re.search(rf"^(def|class) {name}\b", (ROOT / file).read_text(), flags=re.MULTILINE), (file, name)


def test_from_a_stage_s_line_to_the_equation_is_one_jump():
    """The comment on the line names the file that README's table names for it."""
    rows = re.findall(r"^\| .* \| `\d+ (\w+)` \| `(decant/[\w/]+\.py)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    comments = dict(reversed(found) for found in re.findall(
        r"((?:^#.*\n)+)stage \d+ (\w+)", (ROOT / "steps/stages.sh").read_text(), re.MULTILINE))
    for stage, file in rows:
        assert Path(file).name in comments[stage], (stage, file)
