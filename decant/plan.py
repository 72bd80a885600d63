"""What a recipe will need in disk, memory and hours, computed from measured rates before anything runs.

Hours of work are spread evenly over the cores, and no stage waits for a disk. Letters as in decant/distill/needs.py:
N frames, F features of a frame, S pdf-ids, P parameters of a network, which takes 2 P operations a frame forward and
6 P in training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decant.distill import needs
from decant.distill.needs import Frames
from decant.nnet.training import TrainingConfig
from decant.rates import rate

STATES_OF_A_PHONE, PHONES, POSITIONS = 3, 40, 4
Tables = Mapping[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What there is to work on: hours of speech of train, dev and test (all test sets together), utterances of train,
    n-grams of the language model, and how many words of text it is estimated from (0: it is given)."""

    train: float
    dev: float
    test: float
    utterances: int
    ngrams: float
    text: float = 0.0


@dataclass(frozen=True)
class Row:
    """A stage's needs: bytes; core-seconds, of which so many run at a time at most; operations, which a GPU can do."""

    stage: str
    disk: float = 0.0
    memory: float = 0.0
    work: float = 0.0
    operations: float = 0.0
    at_a_time: int = 1_000_000

    def hours(self, jobs: int, core: float, gpu: float | None) -> float:
        """On so many cores of so many operations a second; with a GPU, if its operations a second are given."""
        networks = self.operations / (gpu or core * min(jobs, self.at_a_time))
        return (self.work / jobs + networks) / 3600


def sizes_of(hours: Mapping[str, float], utterances: int | None, ngrams: float | None) -> Sizes:
    """Sizes from hours of train, dev and test; utterances, n-grams: None where they are not known, and then in the
    proportions of LibriSpeech."""
    words = hours["train"] * rate("words")
    return Sizes(hours["train"], hours["dev"], hours["test"],
                 utterances or max(1, round(hours["train"] * 3600 / rate("utterance"))),
                 words * rate("n-grams") if ngrams is None else ngrams, words if ngrams is None else 0.0)


def stages(tables: Tables, sizes: Sizes, jobs: int) -> list[Row]:
    """A row for each shared stage, by the config's tables."""
    frames_an_hour = 3.6e6 / tables["fbank"].frame_shift_ms
    copies = 1 + len(tables["frames"].speeds)
    adapted = tables["frames"].features == "fmllr"
    frames = Frames(round(copies * sizes.train * frames_an_hour),
                    tables["triphone"].lda_dim if adapted else tables["fbank"].num_bins, num_pdfs(tables))
    others = sizes.dev + sizes.test
    speech = sizes.train + others
    features = 4 * tables["fbank"].num_bins * frames_an_hour  # bytes an hour
    shards = (1 + jobs) * rate("memory of a shard") + 4 * sizes.train * frames_an_hour
    labels = 4 * sizes.train * frames_an_hour
    systems = 1 + (len(tables["triphone"].systems) if tables["state_tying"].num_leaves else 0)
    monophone = gmm_work(tables["monophone"], hours_of(sizes, tables["monophone"].utterances),
                         "alignment of monophones")
    searches = rate("search") * 3600 * others
    return [
        Row("1 lang", 30 * sizes.ngrams, sizes.text * rate("n-gram memory"),
            jobs * (sizes.text * rate("n-gram estimation") + sizes.ngrams * rate("n-gram reading"))),
        Row("2 fbank", features * speech, (1 + jobs) * needs.LIBRARIES, rate("fbank") * speech),
        Row("3 monophone", labels, shards, monophone),
        Row("4 tied", (systems - 1) * labels, shards * (systems > 1), tied_work(tables, sizes) if systems > 1 else 0.0),
        Row("5 graph", systems * sizes.ngrams * rate("graph disk"), sizes.ngrams * rate("graph memory"),
            jobs * systems * sizes.ngrams * rate("graph")),
        Row("6 alignment", frames.of(frames.num_frames) + frames.of(round(others * frames_an_hour))
            + features * sizes.train * (copies - 1), shards,
            rate("labels") * (copies * sizes.train + others) + searches * adapted),
        *network_stages(tables, frames, others * frames_an_hour, sizes.dev * frames_an_hour, jobs),
        score_stage(tables, frames, systems, searches, others * frames_an_hour),
    ]


def num_pdfs(tables: Tables) -> int:
    """S: the tree's leaves, or the states of 40 phones, in four positions if they depend on them."""
    positions = POSITIONS if tables["lexicon"].position_dependent_phones else 1
    return tables["state_tying"].num_leaves or STATES_OF_A_PHONE * PHONES * positions


def hours_of(sizes: Sizes, utterances: int) -> float:
    """Of so many of train's utterances (0: all), at the mean length: of the shortest ones, at most."""
    return sizes.train * min(1.0, utterances / sizes.utterances) if utterances else sizes.train


def gmm_work(config: Any, hours: float, alignment: str) -> float:
    """Core-seconds of a system of mixtures: its alignments, its rounds."""
    return hours * (len(config.realign_iterations) * rate(alignment) + config.num_iterations * rate("re-estimation"))


def tied_work(tables: Tables, sizes: Sizes) -> float:
    """Core-seconds of all tied systems; each begins with an alignment by the one before."""
    work = 0.0
    for name in tables["triphone"].systems:
        config, utterances = tables["triphone"].of_system(name)
        hours = hours_of(sizes, utterances)
        work += gmm_work(config, hours, "alignment of triphones") + hours * rate("alignment of triphones")
        work += hours * rate("fmllr") * len(config.fmllr_iterations) * (name == "triphone_sat")
    return work


def network_stages(tables: Tables, frames: Frames, others: float, dev: float, jobs: int) -> list[Row]:
    """Stages 7 to 11. others, dev: frames of dev and test, of dev."""
    model, training, targets = tables["acoustic_model"], tables["training"], tables["soft_targets"]
    distillation, members = tables["distillation"], tables["ensemble"].num_members
    students = len(targets.temperatures) + distillation.num_seeds * distillation.generations - 1
    parameters, one = frames.parameters(model), training_operations(frames, model, training, frames.num_frames, dev)
    passes = targets.passes(frames.num_frames)
    teacher = 2 * members * parameters * frames.num_frames
    learning = students * training_operations(frames, model, tables["student_training"], frames.num_frames, dev)
    if not targets.stored:
        learning += students * teacher * tables["student_training"].epochs
    rows = []
    for stage, need, operations, at_a_time in (
            ("7 baseline", needs.of_trainings(frames, model, training, 1, 1), one, 1),
            ("8 ensemble", needs.of_trainings(frames, model, training, members - 1, min(jobs, members - 1)),
             (members - 1) * one, members - 1),
            ("9 soft_targets", needs.of_soft_targets(frames, model, targets, members, jobs),
             teacher * passes * targets.stored, jobs),
            ("10 students", needs.of_students(frames, model, tables["student_training"], targets, distillation, members,
                                              jobs), learning, students)):
        rows.append(Row(stage, need.disk * (stage != "9 soft_targets" or targets.stored), need.memory, 0.0, operations,
                        at_a_time * training.threads))
    share = tables["regularization"].share * frames.num_frames
    seeds = tables["regularization"].num_seeds
    small = sum(seeds * training_operations(frames, model, tables[f"{kind}_regularization_training"], share, dev)
                for kind in ("hard", "soft"))
    need = needs.of_trainings(frames, model, tables["soft_regularization_training"], 2 * seeds, min(jobs, seeds))
    return [*rows, Row("11 regularization", need.disk, need.memory, 0.0, small, seeds)]


def training_operations(frames: Frames, model: Any, config: TrainingConfig, num_frames: float, dev: float) -> float:
    """Of a network's training on so many frames, with its looks at dev."""
    return frames.parameters(model) * (6 * num_frames * config.epochs + 2 * dev * (config.epochs / config.dev_epochs))


def score_stage(tables: Tables, frames: Frames, systems: int, searches: float, others: float) -> Row:
    """Stage 13: each system of mixtures, each member, their mean and each student, searched once on dev and test."""
    distillation, members = tables["distillation"], tables["ensemble"].num_members
    students = distillation.num_seeds * distillation.generations + len(tables["soft_targets"].temperatures) - 1
    networks = 2 * members + students  # forward passes: each member, all of them for their mean, each student
    return Row("13 score", 0.0, 2 * needs.LIBRARIES, (systems + members + 1 + students) * searches,
               2 * networks * frames.parameters(tables["acoustic_model"]) * others)
