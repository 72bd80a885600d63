from pathlib import Path

import kaldi_decoder  # noqa: F401  before kaldifst: both have OpenFst's flags
import kaldifst
import numpy as np
import pytest

from decant.search.fst_arrays import (
    ARC,
    from_arcs,
    map_fst,
    read_arrays,
    read_graph_arrays,
    to_fst,
    write_arrays,
)

TEXT = "0 1 3 2 0.5\n0 0 0 7 1.5\n1 0 4 0 0.25\n1 2.75\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.fst"
    assert kaldifst.StdConstFst(kaldifst.compile(TEXT)).write(str(path))
    return path


def test_the_arrays_hold_what_openfst_wrote(path):
    fst = read_arrays(path)
    assert fst.start == 0
    assert fst.final.tolist() == [np.inf, 2.75]
    assert fst.offsets.tolist() == [0, 2, 3]
    assert fst.sources.tolist() == [0, 0, 1]
    assert fst.arcs.tolist() == [(3, 2, 0.5, 1), (0, 7, 1.5, 0), (4, 0, 0.25, 0)]


def test_writing_what_was_read_gives_the_states_and_arcs_that_openfst_wrote(path, tmp_path):
    copy = tmp_path / "copy.fst"
    write_arrays(copy, read_arrays(path))
    states, arcs = 2 * 20, 3 * 16
    written, expected = copy.read_bytes(), path.read_bytes()
    assert written[80:80 + states] == expected[65:65 + states]  # a header of 65 bytes, and of 16 times 5
    assert written[-arcs:] == expected[-arcs:]
    assert kaldifst.StdConstFst.read(str(copy)).to_str() == kaldifst.StdConstFst.read(str(path)).to_str()


def test_a_symbol_table_is_read_by_newlines_and_ascii_white_space_alone(path, tmp_path):
    write_arrays(tmp_path / "HCLG.fst", read_arrays(path))
    (tmp_path / "graph.json").write_text('{"num_pdfs": 4}')
    words = ("<eps>", "A\u2028B", "C\x85", "D\x1cE", "F\u00a0G", "H", "I", "J")
    (tmp_path / "words.txt").write_text("".join(f"{word} {n}\n" for n, word in enumerate(words)), encoding="utf-8")
    assert read_graph_arrays(tmp_path, 0.0)[1] == words


def test_kaldifst_changes_a_transducer_that_came_from_arrays(path, tmp_path):
    fst = to_fst(read_arrays(path), tmp_path / "scratch.fst")
    fst.add_arc(1, kaldifst.StdArc(9, 9, 1.0, 1))
    kaldifst.StdConstFst(fst).write(str(tmp_path / "changed.fst"))
    assert read_arrays(tmp_path / "changed.fst").arcs[-1].tolist() == (9, 9, 1.0, 1)


def test_a_transducer_that_was_written_here_is_mapped_not_read(path, tmp_path):
    copy = tmp_path / "copy.fst"
    write_arrays(copy, read_arrays(path))
    fst = map_fst(copy)
    assert str(copy) in Path("/proc/self/maps").read_text()
    assert fst.to_str() == kaldifst.StdConstFst.read(str(path)).to_str()


def test_what_is_written_to_arcs_that_were_read_does_not_change_the_file(path):
    before = path.read_bytes()
    read_arrays(path).arcs["cost"] += 1
    assert path.read_bytes() == before


def test_arcs_in_any_order_are_gathered_by_the_state_they_leave():
    arcs = np.zeros(3, ARC)
    arcs["input"] = [1, 2, 3]
    fst = from_arcs(2, np.zeros(4, np.float32), np.array([2, 0, 2]), arcs)
    assert fst.offsets.tolist() == [0, 1, 1, 3, 3]
    assert fst.arcs["input"].tolist() == [2, 1, 3]


def test_a_file_cut_short_is_refused_by_name(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a\.fst: 152 bytes where its header promises 153"):
        read_arrays(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.fst: 0 bytes are too few"):
        read_arrays(path)


def test_a_vector_file_is_refused_by_name(tmp_path):
    path = tmp_path / "vector.fst"
    kaldifst.compile(TEXT).write(str(path))
    with pytest.raises(ValueError, match=r"vector\.fst is not an OpenFst file of type const"):
        read_arrays(path)
