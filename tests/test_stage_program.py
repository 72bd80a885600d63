"""What a stage's program is given."""

import re
from pathlib import Path

import pytest
import torch

from decant.experiment import Experiment
from decant.nnet.training import TrainingConfig
from steps.stage_program import Stage
from steps.tables import SHARED_TABLES

STAGES = (Path(__file__).parents[1] / "steps/stages.sh").read_text().replace("\\\n", " ")


def test_a_table_that_the_stage_does_not_declare_is_refused(tmp_path):
    (tmp_path / "stage.toml").write_text("[training]\nepochs = 3\n[ensemble]\n")
    experiment = Experiment(tmp_path, "baseline", tmp_path)
    declared = Stage(experiment, tmp_path, 1, torch.device("cpu"), tables=frozenset({"training"}))
    [config] = declared.config(training=TrainingConfig)
    assert config.epochs == 3
    with pytest.raises(ValueError, match=r"stage baseline asks for the table \[ensemble\], which its line in "
                                         r"steps/stages.sh does not name; add it there after --config"):
        declared.config(ensemble=SHARED_TABLES["ensemble"])


def test_the_stages_lines_name_stages_and_tables_that_are_there():
    stages = {"data"}
    for number, name, line in re.findall(r"^stage (\d+) (\w+) (.*)$", STAGES, re.MULTILINE):
        options = dict(re.findall(r"--(reads|reads-if-there|config) ([\w ]+?)(?= --|$)", line))
        reads = set(f"{options.get('reads', '')} {options.get('reads-if-there', '')}".split())
        assert reads <= stages, (number, reads - stages)
        assert set(options.get("config", "").split()) <= SHARED_TABLES.keys(), number
        stages.add(name)
    assert len(stages) == 14
