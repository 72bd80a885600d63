"""A trained system of Gaussian mixtures as a folder: mixtures, what they see, tree, transition probabilities."""

import json
import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.feat.cepstra import GmmFeatures
from decant.files import atomic_path
from decant.hmm.gmm import DiagonalGmm, QuadraticForm, load_gmm, save_gmm
from decant.hmm.topology import TransitionModel, read_transitions, write_transitions
from decant.lang.lexicon import Lexicon

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixtureSystem:
    """Mixtures over features and the HMM whose states they are of. name: of its folder."""

    name: str
    gmm: DiagonalGmm
    features: GmmFeatures
    transitions: TransitionModel

    @cached_property
    def form(self) -> QuadraticForm:
        return QuadraticForm(self.gmm)


@dataclass(frozen=True)
class MixtureScorer:
    """A system as a scorer (decant.distill.scorer): its log-likelihoods, with the log-priors float32 [S] added; these
    are 0 where no priors of its states are known."""

    form: QuadraticForm
    log_priors: Tensor

    def log_posteriors(self, frames: np.ndarray) -> Tensor:
        return self.form.log_likelihoods(torch.from_numpy(frames)) + self.log_priors


def read_system(directory: Path, lexicon: Lexicon) -> MixtureSystem:
    """Reads what `write_system` wrote. Raises ValueError if its files do not fit together or the lexicon's phones."""
    gmm, features = load_gmm(directory)
    return MixtureSystem(directory.name, gmm, features, read_transitions(directory, lexicon.phones))


def write_system(directory: Path, system: MixtureSystem) -> None:
    """Writes what `read_system` reads: gmm.safetensors, transitions.json, tree.json."""
    directory.mkdir(parents=True, exist_ok=True)
    save_gmm(directory, system.gmm, system.features, system.transitions.tree)
    write_transitions(directory, system.transitions)


def write_timing(directory: Path, system: MixtureSystem, started: float) -> None:
    """Writes timing.json, the last file of a finished system, and logs its size. started: on the monotonic clock."""
    with atomic_path(directory / "timing.json") as path:
        path.write_text(json.dumps({"seconds": round(time.monotonic() - started, 1)}) + "\n")
    log.info("%s: %d pdf-ids, %d Gaussians", system.name, system.transitions.num_pdfs,
             int(system.gmm.num_gaussians.sum()))
