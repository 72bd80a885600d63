"""Stage 13: frame accuracy and word error rate of every system, on test with what dev chose.

LM weight and word insertion penalty belong to a system's variant: those with which all its runs together make the
fewest errors on dev. A run's own choice would be one of dev's accidents where dev is small."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from decant.distill.ensemble import EnsembleConfig, ensemble_logits
from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig
from decant.feat.archive import read_int_vectors, write_matrices
from decant.feat.data_dir import read_data_dir
from decant.feat.fbank import check_same_features, read_fbank_config
from decant.files import atomic_path
from decant.hmm.gmm import QuadraticForm, load_gmm
from decant.nnet.acoustic_model import load_model, log_priors, num_parameters
from decant.nnet.frame_store import pack, read_frame_store
from decant.parallel import parallel_map
from decant.score.regularization_results import write_regularization
from decant.score.results import COMPARED, Comparison, ResultRow, write_comparisons, write_results
from decant.score.scoring import (
    ScoringConfig,
    Sentences,
    choose_setting,
    paired_difference,
    utterance_errors,
    wer_interval,
    word_errors,
    write_alignments,
)
from decant.search.beam_search import SearchConfig, Setting
from decant.search.decoding_graph import check_same_tree
from steps.acoustic_training import member_folders
from steps.common import Stage, hmm_folders, logger, run_step
from steps.features import mixture_features, network_features
from steps.search import decode_grid
from steps.train_regularized import regularization_rows
from steps.train_students import student_name

BATCH = 4096


@dataclass(frozen=True)
class System:
    """One run of one system. folders: its models (several: averaged), in the experiment folder. states: the system of
    Gaussian mixtures whose states they predict. chosen: dev chose this variant, so that it is decoded on test."""

    name: str
    folders: tuple[Path, ...]
    states: Path
    variant: str = ""
    seed: int | None = None
    chosen: bool = True

    @property
    def is_gmm(self) -> bool:
        return self.folders == (self.states,)

    @property
    def label(self) -> str:
        parts = (self.name, self.variant.replace(" ", "_"), "" if self.seed is None else str(self.seed))
        return "_".join(part for part in parts if part)


def systems(stage: Stage) -> list[System]:
    ensemble, teaching, config = stage.config(ensemble=EnsembleConfig, soft_targets=SoftTargetsConfig,
                                              distillation=DistillationConfig)
    members, mixtures = member_folders(stage.exp, ensemble.num_members), hmm_folders(stage.exp)
    states = mixtures[-1]
    chosen = json.loads((stage.exp / "students" / "chosen.json").read_text())
    runs = [(t, 1, 1) for t in teaching.temperatures if t != chosen["temperature"]]
    runs += [(chosen["temperature"], seed, generation) for generation in range(1, config.generations + 1)
             for seed in range(1, config.num_seeds + 1)]
    return [
        *(System(folder.name, (folder,), folder) for folder in mixtures),
        *(System("baseline", (folder,), states, seed=number) for number, folder in enumerate(members, start=1)),
        System("ensemble", tuple(members), states),
        *(System("student", (stage.exp / "students" / student_name(t, seed, generation),), states,
                 f"temperature {t:g}{f' generation {generation}' if generation > 1 else ''}", seed,
                 {"temperature": t, "generation": generation} == chosen) for t, seed, generation in runs),
    ]


def gmm_posteriors(stage: Stage, folder: Path, split: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(utterance, log p(x, pdf-id) [T, S], log-priors [S]) of the Gaussian mixtures; priors 0 where the alignment is
    of other states."""
    gmm, _ = load_gmm(folder)
    form, priors = QuadraticForm(gmm), torch.zeros(len(gmm.log_weights))
    if folder == hmm_folders(stage.exp)[-1]:
        priors = log_priors(read_frame_store(stage.exp / "alignment" / "train").pdfs, len(priors))
    for utterance, features in mixture_features(folder, stage.exp / "fbank" / split, stage.exp / "alignment" / split):
        yield utterance, form.log_likelihoods(features) + priors, priors


def network_posteriors(stage: Stage, folders: Sequence[Path], graph_dir: Path,
                       split: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(utterance, log p(pdf-id | x) [T, S], log-priors [S]) of the network, or of the mean of several, to be searched
    with that graph."""
    features_dir = stage.exp / "fbank" / split
    members = []
    for folder in folders:
        model, features = load_model(folder)
        check_same_features(features, read_fbank_config(features_dir), f"{features_dir}, for the model in {folder}")
        members.append(model.to(stage.device))
    check_same_tree(graph_dir, members[0].tree, folders[0])
    frames = network_features(stage.exp, members[0].features, stage.exp / "fbank" / split,
                              stage.exp / "alignment" / split)
    store = pack((utterance, x, np.full(len(x), -1)) for utterance, x in frames).to(stage.device)
    window = members[0].config.window
    for utterance, rows in store.utterance_slices():
        index = torch.arange(rows.start, rows.stop, device=stage.device)
        scores = [ensemble_logits(members, store.windows(part, window)) for part in index.split(BATCH)]
        yield utterance, torch.cat(scores).cpu(), members[0].log_priors.cpu()


def write_likelihoods(stage: Stage, system: System, split: str, prefix: Path) -> dict[str, np.ndarray]:
    """Writes the scaled log-likelihoods of every utterance as a Kaldi archive; returns for each frame of the aligned
    utterances whether its most probable pdf-id is the aligned one: bool [T]."""
    labels = dict(read_int_vectors(stage.exp / "alignment" / split / "ali.scp"))
    right = {}

    def likelihoods() -> Iterator[tuple[str, np.ndarray]]:
        posteriors = (gmm_posteriors(stage, system.states, split) if system.is_gmm else
                      network_posteriors(stage, system.folders, stage.exp / "graph" / system.states.name, split))
        for utterance, scores, priors in posteriors:
            if utterance in labels:
                right[utterance] = scores.argmax(dim=1).numpy() == labels[utterance]
            yield utterance, (scores - priors).numpy()

    write_matrices(prefix, likelihoods())
    return right


def decode(stage: Stage, system: System, split: str,
           settings: Sequence[Setting]) -> tuple[Sentences, dict[Setting, Sentences], dict[str, np.ndarray]]:
    """The references of a split, what the system recognises with each setting, and where its frames are right."""
    [search] = stage.config(search=SearchConfig)
    refs = {utterance.id: utterance.words for utterance in read_data_dir(stage.exp / "data" / split)}
    with TemporaryDirectory(dir=stage.out, prefix=".") as scratch:
        right = write_likelihoods(stage, system, split, Path(scratch, split))
        graph_dir = stage.exp / "graph" / system.states.name
        grid = decode_grid(stage, Path(scratch, f"{split}.scp"), graph_dir, settings, search,
                           1 if stage.device.type == "cpu" else stage.jobs)  # where systems do not share the cores
    # An utterance too short for a frame is recognised as nothing: its words count as deleted.
    return refs, {setting: dict.fromkeys(refs, ()) | grid[setting].words for setting in settings}, right


def dev_errors(stage: Stage, system: System, settings: Sequence[Setting]) -> Counter[Setting]:
    """The system's word errors on dev with each setting, from dev_errors/<label>.json as far as they are there."""
    file = stage.out / "dev_errors" / f"{system.label}.json"
    known = {tuple(setting): errors for *setting, errors in json.loads(file.read_text())} if file.exists() else {}
    if wanted := [setting for setting in settings if setting not in known]:
        refs, grid, _ = decode(stage, system, "dev", wanted)
        known |= {setting: word_errors(refs, words).total for setting, words in grid.items()}
        with atomic_path(file) as path:
            path.write_text(json.dumps([[*setting, errors] for setting, errors in sorted(known.items())]))
    return Counter({setting: known[setting] for setting in settings})


def choose_settings(stage: Stage, everything: Sequence[System]) -> dict[tuple[str, str], Setting]:
    """By name and variant: the LM weight that does best with the first penalty, then the best penalty with it."""
    [config] = stage.config(scoring=ScoringConfig)
    variants = {(system.name, system.variant) for system in everything}

    def best(settings: dict[tuple[str, str], list[Setting]]) -> dict[tuple[str, str], Setting]:
        errors = {variant: Counter() for variant in variants}
        tasks = [(stage, system, settings[system.name, system.variant]) for system in everything]
        for system, found in zip(everything, parallel_map(dev_errors, tasks, stage.model_jobs, "dev"), strict=True):
            errors[system.name, system.variant].update(found)
        return {variant: choose_setting(errors[variant]) for variant in variants}

    first = config.word_insertion_penalties[0]
    weights = best({variant: [(weight, first) for weight in config.lm_weights] for variant in variants})
    for variant, (weight, _) in sorted(weights.items()):
        if weight in (min(config.lm_weights), max(config.lm_weights)) and len(config.lm_weights) > 1:
            logger.warning("%s: dev chose the LM weight %g, at the edge of scoring.lm_weights; try more beyond it",
                           " ".join(variant).strip(), weight)
    return best({variant: [(weights[variant][0], penalty) for penalty in config.word_insertion_penalties]
                 for variant in variants})


def score(stage: Stage, system: System, setting: Setting) -> None:
    """Writes the system's rows to rows/<label>.json, its alignments to details/, and what it counted in every utterance
    to counts/, unless they are there."""
    rows_file = stage.out / "rows" / f"{system.label}.json"
    if rows_file.exists():
        return
    rows, first = [], system.folders[0].relative_to(stage.exp)
    for split in ("dev", "test") if system.chosen else ("dev",):
        refs, grid, right = decode(stage, system, split, [setting])
        write_alignments(stage.out / "details" / f"{system.label}_{split}.txt", refs, grid[setting])
        errors, (low, high) = word_errors(refs, grid[setting]), wer_interval(refs, grid[setting])
        write_counts(stage.out / "counts" / f"{system.label}_{split}.json", refs, grid[setting], right)
        frames = np.concatenate(list(right.values()))
        aligned = system.states == hmm_folders(stage.exp)[-1]  # other states have no frame accuracy
        rows.append(ResultRow(
            system.name, split, system.chosen, system.variant, system.seed, len(frames) if aligned else None,
            float(frames.mean()) if aligned else None,
            errors.words, errors.wer, low, high, parameters(system), training_seconds(system), *setting,
            f"{first.parts[0]}/stage.toml" if system.is_gmm else f"{first}/config.toml"))
    with atomic_path(rows_file) as path:
        path.write_text(json.dumps([asdict(row) for row in rows]))


def write_counts(path: Path, refs: Sentences, hyps: Sentences, right: dict[str, np.ndarray]) -> None:
    """{utterance: [word errors, words, right frames, frames]}; without an alignment, no frames."""
    counts = {}
    for utterance in sorted(refs):
        errors, frames = utterance_errors(refs[utterance], hyps[utterance]), right.get(utterance, np.zeros(0, bool))
        counts[utterance] = [errors.total, errors.words, int(frames.sum()), len(frames)]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(counts))


def comparisons(stage: Stage, everything: Sequence[System]) -> Iterator[Comparison]:
    """The systems that results name for it, each with another, on test."""
    def counts(name: str) -> np.ndarray:
        """The mean over a system's runs of what write_counts wrote: float64 [U, 4]."""
        runs = [json.loads((stage.out / "counts" / f"{system.label}_test.json").read_text())
                for system in everything if system.name == name and system.chosen]
        return np.mean([[run[utterance] for utterance in sorted(run)] for run in runs], axis=0)

    for system, against in COMPARED:
        ours, theirs = counts(system), counts(against)
        for figure, count, size in (("frame_accuracy", 2, 3), ("wer", 0, 1)):
            yield Comparison(system, against, figure,
                             *paired_difference(ours[:, count], theirs[:, count], ours[:, size]))


def parameters(system: System) -> int:
    if system.is_gmm:
        gmm, _ = load_gmm(system.folders[0])
        return int(gmm.num_gaussians.sum()) * (1 + 2 * gmm.means.shape[2])
    return sum(num_parameters(load_model(folder)[0]) for folder in system.folders)


def training_seconds(system: System) -> float:
    """Wall clock of the training, of all models of an ensemble together."""
    if system.is_gmm:
        return json.loads((system.folders[0] / "timing.json").read_text())["seconds"]
    histories = [json.loads((folder / "history.json").read_text()) for folder in system.folders]
    return round(sum(epoch["seconds"] for history in histories for epoch in history), 1)


def main(stage: Stage) -> None:
    everything = systems(stage)
    for folder in ("dev_errors", "rows", "details", "counts"):
        (stage.out / folder).mkdir(exist_ok=True)
    settings = choose_settings(stage, everything)
    tasks = [(stage, system, settings[system.name, system.variant]) for system in everything]
    for _ in parallel_map(score, tasks, stage.model_jobs, "decoding"):
        pass
    rows = [ResultRow(**row) for system in everything
            for row in json.loads((stage.out / "rows" / f"{system.label}.json").read_text())]
    write_results(stage.out / "results.json", rows)
    write_comparisons(stage.out / "comparisons.json", comparisons(stage, everything))
    write_regularization(stage.out / "regularization.json", regularization_rows(stage))


if __name__ == "__main__":
    run_step(main)
