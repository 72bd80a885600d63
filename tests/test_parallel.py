import os
import resource
import signal
import subprocess
import sys

import pytest
import torch

from decant.parallel import parallel_map


def test_results_come_in_the_order_of_the_arguments():
    assert list(parallel_map(pow, [(2, 3), (3, 2), (5, 1)], 1, "powers")) == [8, 9, 5]
    assert list(parallel_map(pow, [], 2, "powers")) == []


def test_one_job_works_with_one_thread_and_gives_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(parallel_map(torch.get_num_threads, [()], 1, "threads")) == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_of_the_function_is_raised():
    with pytest.raises(TypeError):
        list(parallel_map(pow, [(2, 3), ("a", 2)], 1, "powers"))


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "program.py").write_text(
        "import time\n"
        "from decant.parallel import parallel_map\n"
        "def work(second):\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    list(parallel_map(work, [(1,), (2,)], 2, 'sleep'))\n"
    )
    parent = subprocess.Popen([sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True,
                              env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert [parent.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=300)  # the pipe closes when the last worker is gone, after 600 s if they live on


DOUBLE = """
import logging, sys, torch
from decant.parallel import parallel_map
def double(x):
    logging.getLogger().info("na\\u00efve %d", len(x))
    return 2 * x
if __name__ == "__main__":
    logging.basicConfig(handlers=[logging.FileHandler(sys.argv[1], encoding="utf-8")], level=logging.INFO)
    x = torch.arange(100_000.0)
    assert all(torch.equal(y, 2 * x) for y in parallel_map(double, [(x,), (x,)], 2, "double"))
"""


def run_double(tmp_path, **options):
    (tmp_path / "double.py").write_text(DOUBLE)
    environment = os.environ | {"PYTHONPATH": os.getcwd()} | options.pop("env", {})
    done = subprocess.run([sys.executable, tmp_path / "double.py", tmp_path / "log"], env=environment, check=False,
                          stderr=subprocess.PIPE, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_tensors_go_to_workers_and_back_without_shared_memory(tmp_path):
    """A limit on the size of files stands in for a full /dev/shm: the system refuses the memory in the same way."""
    run_double(tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))


def test_workers_start_where_temporary_files_have_a_long_name(tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    run_double(tmp_path, env={"TMPDIR": str(folder)})


def test_workers_logs_are_utf_8_on_any_terminal(tmp_path):
    said = run_double(tmp_path, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert (tmp_path / "log").read_text(encoding="utf-8") == 2 * "na\u00efve 100000\n" and "Traceback" not in said
