"""Which systems an experiment has, what each of them sees of a split, and what it says about it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from decant.distill.ensemble import EnsembleConfig
from decant.distill.scorer import MeanOfNetworks, Scorer
from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig
from decant.experiment import Experiment, Run, read_choice, student_runs
from decant.feat.fbank import check_same_features, load_features, read_fbank_config
from decant.feat.front_end import read_filterbanks, read_transforms
from decant.hmm.gmm import QuadraticForm, load_gmm
from decant.hmm.system import MixtureScorer
from decant.nnet.acoustic_model import load_model, log_priors, num_parameters
from decant.nnet.frame_store import read_frame_store
from decant.nnet.model_training import load_models
from decant.search.decoding_graph import check_same_tree


@dataclass(frozen=True)
class System:
    """One run of one system. folders: its models (several: averaged). states: the system of Gaussian mixtures whose
    states they predict. chosen: dev chose this variant, so that it is decoded on the test sets."""

    run: Run
    folders: tuple[Path, ...]
    states: Path
    chosen: bool = True

    @property
    def is_mixtures(self) -> bool:
        return self.folders == (self.states,)

    @property
    def label(self) -> str:
        return self.run.label


def find_systems(experiment: Experiment, ensemble: EnsembleConfig, teaching: SoftTargetsConfig,
                 config: DistillationConfig) -> list[System]:
    """All systems of the stages that have run, in the order of decant.experiment.SYSTEMS."""
    states = experiment.mixtures[-1]
    found = [System(Run(folder.name), (folder,), folder) for folder in experiment.mixtures]
    members = experiment.members(ensemble.num_members if experiment.has("ensemble") else 1)
    if experiment.has("baseline"):
        found += [System(Run("baseline", seed=number), (folder,), states)
                  for number, folder in enumerate(members, start=1)]
    if experiment.has("ensemble"):
        found.append(System(Run("ensemble"), tuple(members), states))
    if experiment.has("students"):
        temperature, generation = read_choice(experiment.chosen_student)
        found += [System(run, (experiment.student(run),), states,
                         (run.temperature, run.generation) == (temperature, generation))
                  for run in student_runs(teaching.temperatures, config.num_seeds, config.generations, temperature)]
    return found


def scorer_of(experiment: Experiment, system: System, device: torch.device) -> Scorer:
    """What says how probable the states are. Of mixtures, the priors are 0 where the alignment is of other states."""
    if system.is_mixtures:
        gmm, _ = load_gmm(system.states)
        priors = torch.zeros(len(gmm.log_weights))
        if system.states == experiment.mixtures[-1]:
            priors = log_priors(read_frame_store(experiment.alignment("train")).pdfs, len(priors))
        return MixtureScorer(QuadraticForm(gmm), priors)
    networks = load_models(system.folders, device)
    check_same_tree(experiment.graph(system.states), networks[0].tree, system.folders[0])
    return MeanOfNetworks(networks)


def frames_of(experiment: Experiment, system: System, split: str) -> Iterable[tuple[str, np.ndarray]]:
    """(utterance, float32 [T, F]) of a split, as the system sees them. Raises ValueError if its networks were trained
    on filterbanks of other settings."""
    fbank = experiment.fbank(split)
    if system.is_mixtures:
        return _mixture_frames(experiment, system, split)
    for folder in system.folders:
        model, features = load_model(folder)
        check_same_features(features, read_fbank_config(fbank), f"{fbank}, for the model in {folder}")
    return load_features(fbank) if model.features == "fbank" else _mixture_frames(experiment, system, split)


def _mixture_frames(experiment: Experiment, system: System, split: str) -> Iterator[tuple[str, np.ndarray]]:
    _, seen = load_gmm(system.states)
    speakers = read_transforms(experiment.alignment(split) / "fmllr") if seen.adapted else None
    features = read_filterbanks(experiment.fbank(split)).for_mixtures(seen, speakers)
    return ((utterance, x.numpy()) for utterance, x in features)


def parameters(system: System) -> int:
    """How many numbers training has set."""
    if system.is_mixtures:
        gmm, _ = load_gmm(system.folders[0])
        return int(gmm.num_gaussians.sum()) * (1 + 2 * gmm.means.shape[2])
    return sum(num_parameters(model) for model in load_models(system.folders, torch.device("cpu")))


def training_seconds(system: System) -> float:
    """Wall clock of the training, of all models of an ensemble together."""
    if system.is_mixtures:
        return json.loads((system.folders[0] / "timing.json").read_text())["seconds"]
    histories = [json.loads((folder / "history.json").read_text()) for folder in system.folders]
    return round(sum(epoch["seconds"] for history in histories for epoch in history), 1)
