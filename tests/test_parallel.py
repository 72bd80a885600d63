import os
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
