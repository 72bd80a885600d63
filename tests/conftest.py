import pytest
from small_recipe import TINY, run


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
    from small_training import two_bins  # not above: k2's environment, whose tests come by here, lacks what it needs

    return two_bins()
