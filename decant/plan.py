"""What a recipe will need in disk, memory and hours, computed from measured rates before anything runs.

Hours of work are spread evenly over the cores, and no stage waits for a disk. Letters as in decant/distill/needs.py:
N frames, F features of a frame, S pdf-ids, P parameters of a network, which takes 2 P operations a frame forward and
6 P in training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decant.distill import needs
from decant.distill.needs import Frames, Needs
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
    """A stage's needs: bytes; core-seconds of work; operations of networks, so many of which are trained at a time at
    most, in so many minibatches, and which a GPU can do."""

    stage: str
    disk: float = 0.0
    memory: float = 0.0
    work: float = 0.0
    operations: float = 0.0
    steps: float = 0.0
    at_a_time: int = 1_000_000

    def hours(self, jobs: int, core: float) -> float:
        """On so many cores of so many operations a second."""
        return (self.work / jobs + self.operations / (core * min(jobs, self.at_a_time))) / 3600

    def gpu_hours(self, jobs: int) -> float:
        """With networks on a GPU, one after the other."""
        networks = max(self.operations / rate("training, GPU"), self.steps * rate("step, GPU"))
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
        *network_stages(tables, frames, sizes.dev * frames_an_hour, jobs),
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


def network_stages(tables: Tables, frames: Frames, dev: float, jobs: int) -> list[Row]:
    """Stages 7 to 11. dev: its frames."""
    model, training, targets = tables["acoustic_model"], tables["training"], tables["soft_targets"]
    learning, distillation = tables["student_training"], tables["distillation"]
    members, share = tables["ensemble"].num_members, tables["regularization"].share * frames.num_frames
    students = len(targets.temperatures) + distillation.num_seeds * distillation.generations - 1
    seeds, small = tables["regularization"].num_seeds, tables["soft_regularization_training"]
    teacher = 2 * members * frames.parameters(model) * frames.num_frames
    passes = targets.passes(frames.num_frames) * targets.stored
    answers = 0 if targets.stored else students * teacher * learning.epochs

    def trained(config: TrainingConfig, num_frames: float, networks: int) -> tuple[float, float]:
        """Operations, with the looks at dev, and minibatches."""
        each = 6 * num_frames * config.epochs + 2 * dev * config.epochs / config.dev_epochs
        return networks * frames.parameters(model) * each, networks * num_frames * config.epochs / config.batch_size

    def row(stage: str, need: Needs, work: tuple[float, float], at_a_time: int) -> Row:
        return Row(stage, need.disk, need.memory, 0.0, *work, at_a_time * training.threads)

    of_hard, of_soft = (trained(tables[f"{kind}_regularization_training"], share, seeds) for kind in ("hard", "soft"))
    of_students = trained(learning, frames.num_frames, students)
    return [
        row("7 baseline", needs.of_trainings(frames, model, training, 1, 1),
            trained(training, frames.num_frames, 1), 1),
        row("8 ensemble", needs.of_trainings(frames, model, training, members - 1, min(jobs, members - 1)),
            trained(training, frames.num_frames, members - 1), members - 1),
        row("9 soft_targets", needs.of_soft_targets(frames, model, targets, members, jobs) if passes else Needs(0, 0),
            (passes * teacher, passes * members * frames.num_frames / needs.TEACHER_BATCH), jobs),
        row("10 students", needs.of_students(frames, model, learning, targets, distillation, members, jobs),
            (of_students[0] + answers, of_students[1]), students),
        row("11 regularization", needs.of_trainings(frames, model, small, 2 * seeds, min(jobs, seeds)),
            (of_hard[0] + of_soft[0], of_hard[1] + of_soft[1]), seeds),
    ]


def score_stage(tables: Tables, frames: Frames, systems: int, searches: float, others: float) -> Row:
    """Stage 13: each system of mixtures, each member, their mean and each student, searched once on dev and test."""
    distillation, members = tables["distillation"], tables["ensemble"].num_members
    students = distillation.num_seeds * distillation.generations + len(tables["soft_targets"].temperatures) - 1
    networks = 2 * members + students  # forward passes: each member, all of them for their mean, each student
    return Row("13 score", 0.0, 2 * needs.LIBRARIES, (systems + members + 1 + students) * searches,
               2 * networks * frames.parameters(tables["acoustic_model"]) * others)
