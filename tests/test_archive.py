import os
import subprocess
import sys

import kaldi_io
import numpy as np
import pytest

from decant.feat.archive import (
    merge_scp,
    read_int_vectors,
    read_matrices,
    read_matrix,
    read_scp,
    write_int_vectors,
    write_matrices,
)

A = np.array([[1.5, 2.0], [3.0, -4.0], [5.0, 6.0]], dtype=np.float32)
B = np.array([[7.0, 8.0]], dtype=np.float32)


def test_matrices_read_back_as_they_were_written(tmp_path):
    write_matrices(tmp_path / "x", [("a", A), ("b", B.astype(np.float64))])
    (first, a), (second, b) = read_matrices(tmp_path / "x.scp")
    assert (first, second) == ("a", "b")
    assert np.array_equal(a, A) and a.dtype == np.float32
    assert np.array_equal(b, B) and b.dtype == np.float64
    assert [matrix.tolist() for _, matrix in kaldi_io.read_mat_ark(str(tmp_path / "x.ark"))] == [A.tolist(), B.tolist()]
    a[0, 0] = 0  # and may be written to


def test_the_bytes_are_those_of_kaldi(tmp_path):
    write_matrices(tmp_path / "x", [("key", B)])
    # "key ", the binary mark, "FM " for a float matrix, rows and columns each after their size of 4 bytes, the floats
    assert (tmp_path / "x.ark").read_bytes() == (
        b"key \0BFM \4\1\0\0\0\4\2\0\0\0" + np.array([7, 8], dtype="<f4").tobytes()
    )
    assert (tmp_path / "x.scp").read_text() == "key x.ark:4\n"
    write_int_vectors(tmp_path / "y", [("key", np.array([3, -1]))])
    assert (tmp_path / "y.ark").read_bytes() == b"key \0B\4\2\0\0\0\4\3\0\0\0\4\xff\xff\xff\xff"


def test_int_vectors_read_back_and_kaldi_io_reads_them_too(tmp_path):
    items = [("a", np.array([5, 0, 2**31 - 1])), ("b", np.array([], dtype=np.int32)), ("c", np.array([-7]))]
    write_int_vectors(tmp_path / "ali", items)
    for read in (read_int_vectors(tmp_path / "ali.scp"), kaldi_io.read_vec_int_ark(str(tmp_path / "ali.ark"))):
        assert [(key, vector.tolist()) for key, vector in read] == [(key, vector.tolist()) for key, vector in items]


def test_an_archive_can_be_moved_with_its_scp(tmp_path):
    (tmp_path / "first").mkdir()
    write_matrices(tmp_path / "first" / "x", [("a", A)])
    (tmp_path / "first").rename(tmp_path / "second")
    places = read_scp(tmp_path / "second" / "x.scp")
    assert places == {"a": f"{tmp_path}/second/x.ark:2"}
    assert np.array_equal(read_matrix(places["a"]), A)


def test_parts_of_several_jobs_become_one_sorted_scp(tmp_path):
    (tmp_path / "job").mkdir()
    write_matrices(tmp_path / "job" / "x.1", [("b", B)])
    write_matrices(tmp_path / "job" / "x.2", [("a", A), ("c", B)])
    merge_scp([tmp_path / "job" / "x.1.scp", tmp_path / "job" / "x.2.scp"], tmp_path / "x.scp")
    # "a " is 2 bytes, its matrix 15 of header and 3 * 2 * 4 of values, "c " another 2.
    assert (tmp_path / "x.scp").read_text() == "a job/x.2.ark:2\nb job/x.1.ark:2\nc job/x.2.ark:43\n"
    assert [(key, len(matrix)) for key, matrix in read_matrices(tmp_path / "x.scp")] == [("a", 3), ("b", 1), ("c", 1)]
    with pytest.raises(ValueError, match="x.1.scp: b is in an earlier part too"):
        merge_scp([tmp_path / "job" / "x.1.scp"] * 2, tmp_path / "y.scp")
    assert not (tmp_path / "y.scp").exists()


def test_keys_outside_of_latin_1_are_kept(tmp_path):
    write_matrices(tmp_path / "x", [("\u4e00", A)])
    assert (tmp_path / "x.ark").read_bytes().startswith("\u4e00 ".encode())
    assert [key for key, _ in read_matrices(tmp_path / "x.scp")] == ["\u4e00"]


@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"], ["a b"], [""]])
def test_keys_unsorted_duplicate_or_not_a_word_are_refused_and_nothing_is_left(tmp_path, keys):
    with pytest.raises(ValueError, match="cannot follow"):
        write_matrices(tmp_path / "x", [(key, A) for key in keys])
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_the_old_archive(tmp_path):
    def broken():
        yield "a", B
        raise RuntimeError("stopped")

    write_matrices(tmp_path / "x", [("a", A)])
    with pytest.raises(RuntimeError, match="stopped"):
        write_matrices(tmp_path / "x", broken())
    assert [matrix.tolist() for _, matrix in read_matrices(tmp_path / "x.scp")] == [A.tolist()]


def test_an_scp_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "x.scp").write_bytes(b"a x.ark:2\n\xff x.ark:9\n")
    with pytest.raises(ValueError, match=r"x.scp:2: not UTF-8 text \(invalid start byte\)"):
        read_scp(tmp_path / "x.scp")


@pytest.mark.parametrize(("line", "message"), [
    ("b touch evil |", "x.scp:2: 'touch evil |' is a shell command"),
    ("b | touch evil", "x.scp:2: .* is a shell command"),
    ("b x.ark:2[0:1]", "x.scp:2: expected `key archive:offset`, found 'b x.ark:2"),
    ("b", "x.scp:2: expected `key archive:offset`, found 'b'"),
    ("a x.ark:2", "x.scp:2: a is there twice"),
])
def test_a_wrong_line_of_an_scp_is_named(tmp_path, line, message):
    write_matrices(tmp_path / "x", [("a", A)])
    (tmp_path / "x.scp").write_text(f"a x.ark:2\n{line}\n")
    with pytest.raises(ValueError, match=message):
        list(read_matrices(tmp_path / "x.scp"))
    assert not (tmp_path / "evil").exists()


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="x.scp: no such file"):
        read_scp(tmp_path / "x.scp")
    (tmp_path / "x.scp").touch()
    with pytest.raises(ValueError, match="x.scp: the file is empty"):
        read_scp(tmp_path / "x.scp")
    (tmp_path / "x.scp").write_text("a y.ark:2\n")
    with pytest.raises(FileNotFoundError, match="x.scp: cannot read a: .*y.ark: no such archive"):
        list(read_matrices(tmp_path / "x.scp"))


@pytest.mark.parametrize("write, read, value", [(write_matrices, read_matrices, A),
                                                (write_int_vectors, read_int_vectors, np.arange(6))])
def test_an_archive_truncated_anywhere_is_named_with_the_key(tmp_path, write, read, value):
    write(tmp_path / "x", [("a", value)])
    content = (tmp_path / "x.ark").read_bytes()
    for size in range(len(content)):
        (tmp_path / "x.ark").write_bytes(content[:size])
        with pytest.raises(ValueError, match="x.scp: cannot read a: .*x.ark: truncated or damaged at byte 2"):
            list(read(tmp_path / "x.scp"))


def test_matrices_are_not_taken_for_int_vectors(tmp_path):
    write_matrices(tmp_path / "x", [("a", A)])
    with pytest.raises(ValueError, match="cannot read a"):
        list(read_int_vectors(tmp_path / "x.scp"))


@pytest.mark.parametrize(("begins", "name"), [
    (b"\0BCM " + bytes(16), "a compressed matrix; write it anew by `copy-feats --compress=false"),
    (b"\0BCM2 " + bytes(16), "a compressed matrix"),
    (b"\0BCM3 " + bytes(16), "a compressed matrix"),
    (b" [\n  1.5 2.0\n  3.0 -4.0 ]\n", "text; write it anew in binary by `copy-feats"),
    (b"3 4 5\n", "text; .*`copy-int-vector` for labels"),
    (b"\0BFV \4\1\0\0\0\0\0\0\0", "a vector of floats"),
])
@pytest.mark.parametrize("read", [read_matrices, read_int_vectors])
def test_other_values_of_kaldi_are_named_for_what_they_are(tmp_path, read, begins, name):
    (tmp_path / "x.ark").write_bytes(b"a " + begins)
    (tmp_path / "x.scp").write_text("a x.ark:2\n")
    with pytest.raises(ValueError, match=f"x.scp: cannot read a: .*x.ark: at byte 2 is {name}"):
        list(read(tmp_path / "x.scp"))


@pytest.mark.parametrize("content", [b"\0BFM \4\xff\xff\xff\xff\4\1\0\0\0", b"\0BFM \4\xff\xff\xff\x7f\4\2\0\0\0",
                                     b"\0BFM \1\1\0\0\0\4\1\0\0\0" + bytes(4),
                                     b"\0BXM \4\1\0\0\0\4\1\0\0\0" + bytes(4)])
def test_a_matrix_header_that_cannot_be_is_damage(tmp_path, content):
    (tmp_path / "x.ark").write_bytes(content)
    with pytest.raises(ValueError, match="x.ark: truncated or damaged at byte 0"):
        read_matrix(f"{tmp_path}/x.ark:0")


def test_archives_are_read_and_faults_found_where_python_runs_without_asserts(tmp_path):
    write_matrices(tmp_path / "x", [("a", A), ("b", B.astype(np.float64))])
    write_int_vectors(tmp_path / "y", [("a", np.array([5, -7]))])
    program = ("import sys; from decant.feat.archive import read_int_vectors, read_matrices; "
               "print([(key, value.tolist()) for read, name in ((read_matrices, 'x'), (read_int_vectors, 'y')) "
               "for key, value in read(f'{sys.argv[1]}/{name}.scp')])")
    optimised = [sys.executable, "-O", "-c", program, str(tmp_path)]
    done = subprocess.run(optimised, capture_output=True, text=True)
    assert done.stdout == f"{[('a', A.tolist()), ('b', B.tolist()), ('a', [5, -7])]}\n", done.stderr
    (tmp_path / "y.ark").write_bytes((tmp_path / "y.ark").read_bytes()[:-1])
    done = subprocess.run(optimised, capture_output=True, text=True)
    assert "y.scp: cannot read a: " in done.stderr and "y.ark: truncated or damaged at byte 2" in done.stderr


def test_importing_prints_nothing_and_leaves_the_environment_alone():
    program = "import os; before = dict(os.environ); import decant.feat.archive; assert os.environ == before"
    for environment in ({}, {"KALDI_ROOT": "/no/such/kaldi"}):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              env=os.environ | environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
