from decant import progress as progress_module
from decant.progress import progress


def test_items_pass_through_and_a_short_work_prints_nothing_where_there_is_no_terminal(capsys):
    assert list(progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_of_several_processes_the_first_one_shows_it(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert list(progress(range(2), 2, "letters")) == [0, 1]
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_where_there_is_no_terminal_each_interval_has_a_line_with_what_is_done(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0)
    list(progress(range(2), 2, "letters"))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("letters:  50%") and "1/2" in first
    assert second.startswith("letters: 100%") and "2/2" in second
