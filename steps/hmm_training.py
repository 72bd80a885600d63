"""What the stages that train Gaussian mixtures share: a finished system's folder."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from decant.alignment import BestPath
from decant.cepstra import GmmFeatures
from decant.files import atomic_path
from decant.gmm import DiagonalGmm, save_gmm
from decant.hmm import TransitionModel, write_transitions
from steps.common import logger


def save_hmm(directory: Path, gmm: DiagonalGmm, transitions: TransitionModel, paths: Sequence[BestPath | None],
             features: GmmFeatures, started: float) -> None:
    """Writes gmm.safetensors, transitions.json, tree.json and training.json; logs what was reached."""
    directory.mkdir(exist_ok=True)
    save_gmm(directory, gmm, features, transitions.tree)
    write_transitions(directory, transitions)
    with atomic_path(directory / "training.json") as path:
        path.write_text(json.dumps({"seconds": round(time.monotonic() - started, 1)}) + "\n")
    logger.info("%s: %d pdf-ids, %d Gaussians; %d of %d utterances could not be aligned",
                directory.name.removesuffix(".partial"), transitions.num_pdfs, int(gmm.num_gaussians.sum()),
                sum(path is None for path in paths), len(paths))
