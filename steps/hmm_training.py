"""What the stages that train Gaussian mixtures share: a finished system's folder."""

import json
import time
from pathlib import Path

from decant.feat.cepstra import GmmFeatures
from decant.files import atomic_path
from decant.hmm.gmm import save_gmm
from decant.hmm.gmm_training import TrainedGmm
from decant.hmm.topology import write_transitions
from steps.common import logger


def save_hmm(directory: Path, trained: TrainedGmm, features: GmmFeatures, started: float) -> None:
    """Writes gmm.safetensors, transitions.json, tree.json and timing.json; logs what was reached."""
    directory.mkdir(exist_ok=True)
    save_gmm(directory, trained.gmm, features, trained.transitions.tree)
    write_transitions(directory, trained.transitions)
    with atomic_path(directory / "timing.json") as path:
        path.write_text(json.dumps({"seconds": round(time.monotonic() - started, 1)}) + "\n")
    logger.info("%s: %d pdf-ids, %d Gaussians; %d utterances could not be aligned",
                directory.name.removesuffix(".partial"), trained.transitions.num_pdfs,
                int(trained.gmm.num_gaussians.sum()), trained.num_unusable)
