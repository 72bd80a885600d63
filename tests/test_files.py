import resource
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from decant.files import atomic_path, write_tensors


def test_a_file_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")
    with atomic_path(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("write", [
    "with atomic_path(sys.argv[1]) as path, open(path, 'wb') as file: file.write(bytes(200_000))",
    "write_tensors(sys.argv[1], {'x': torch.zeros(50_000)})",
])
def test_a_disk_that_takes_no_more_is_an_error_that_names_the_file(tmp_path, write):
    """A limit on the size of files stands in for a full disk: the system refuses the write in the same way."""
    target = tmp_path / "x.bin"
    write_tensors(target, {"x": torch.ones(3)})
    program = f"import sys, torch\nfrom decant.files import atomic_path, write_tensors\n{write}"
    done = subprocess.run([sys.executable, "-c", program, str(target)], stderr=subprocess.PIPE, text=True, check=False,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert "OSError" in done.stderr and "x.bin" in done.stderr.splitlines()[-1]
    assert torch.equal(load_file(target)["x"], torch.ones(3)) and list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_file_is_on_disk_before_it_takes_its_name_and_its_name_after(tmp_path):
    """By the calls that the system saw."""
    program = ("import sys\nfrom decant.files import atomic_path\n"
               "with atomic_path(sys.argv[1]) as path: path.write_text('new')")
    trace = ["strace", "-f", "--seccomp-bpf", "-y", "-e", "trace=fsync,rename", "-o", tmp_path / "calls"]
    subprocess.run([*trace, sys.executable, "-c", program, tmp_path / "x.txt"], check=True)
    lines = (tmp_path / "calls").read_text().splitlines()
    calls = [line.split(maxsplit=1)[1].partition("(")[::2] for line in lines if str(tmp_path) in line]  # after the pid
    assert [name for name, _ in calls] == ["fsync", "rename", "fsync"]
    assert ".x.txt>" in calls[0][1] and f"<{tmp_path}>" in calls[2][1]
