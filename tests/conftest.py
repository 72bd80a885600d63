import pytest
from small_recipe import TINY, run
from small_training import two_bins


@pytest.fixture(scope="session")
def left_alone(tmp_path_factory):
    """The experiment folder of a small recipe that ran through all its stages."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tiny.toml").write_text(TINY)
    done = run(folder / "alone")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "alone"


@pytest.fixture
def store():
    """200 frames of two bins, in memory."""
    return two_bins()
