"""Where everything of an experiment lies, and what sets a run of a system apart from the others.

An experiment is a folder with a folder for every finished stage. What a stage finds in another one's folder it asks
for here, by what it is; no other module spells a folder's name.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIXTURES = ("monophone", "triphone", "triphone_lda", "triphone_sat")
SYSTEMS = (*MIXTURES, "baseline", "ensemble", "student")  # in the order in which tables show them


@dataclass(frozen=True)
class Run:
    """One run of one system. system: one of SYSTEMS. seed: of a baseline, the ensemble's member; of a student, which of
    those that differ in it alone."""

    system: str
    temperature: float | None = None  # of the soft targets that a student learned
    generation: int | None = None  # of a student: 1 learned from the ensemble, later ones from students
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise ValueError(f"system is {self.system!r}; it has to be one of {', '.join(SYSTEMS)}")

    @property
    def variant(self) -> str:
        """What the runs that differ in their seed alone have in common beside the system, for people."""
        if self.temperature is None:
            return ""
        later = f" generation {self.generation}" if (self.generation or 1) > 1 else ""
        return f"temperature {self.temperature:g}{later}"

    @property
    def of_student(self) -> tuple[float, int, int]:
        """A student's temperature, generation and seed. Raises ValueError for a run that lacks one of them."""
        if self.temperature is None or self.generation is None or self.seed is None:
            raise ValueError(f"{self} is not a student's: it needs temperature, generation and seed")
        return self.temperature, self.generation, self.seed

    @property
    def label(self) -> str:
        """A name for files."""
        parts = (self.system, self.variant.replace(" ", "_"), "" if self.seed is None else str(self.seed))
        return "_".join(part for part in parts if part)


@dataclass(frozen=True)
class Experiment:
    """The folders of an experiment as one stage sees them: its own, where it is at work, and those that it declares.

    root: the experiment's folder. stage, out: the stage at work and the folder that it writes, under whatever name.
    reads: the stages that it may look at; there: those of them that the recipe has; None for all (tools, tests).
    """

    root: Path
    stage: str = ""
    out: Path | None = None
    reads: frozenset[str] | None = None
    there: frozenset[str] | None = None

    def folder(self, stage: str) -> Path:
        """The folder of a stage. Raises ValueError for one that the stage at work has not declared."""
        if stage == self.stage and self.out is not None:
            return self.out
        if self.reads is not None and stage not in self.reads:
            raise ValueError(f"stage {self.stage} reads {stage}, which its line in steps/stages.sh does not name; add "
                             f"it there after --reads")
        return self.root / stage

    def has(self, stage: str) -> bool:
        """Whether the recipe has run a stage that it might have left out."""
        return self.folder(stage).exists() if self.there is None else stage in self.there or stage == self.stage

    # Corpus, words and features

    def data(self, split: str) -> Path:
        return self.folder("data") / split

    def splits(self, stage: str) -> tuple[str, ...]:
        """train, dev, and the test sets of a stage's folder: `test`, or several that begin with `test_`."""
        tests = sorted(path.name for path in self.folder(stage).glob("test*") if path.is_dir())
        return "train", "dev", *tests

    @property
    def lexicon(self) -> Path:
        return self.folder("lang") / "lexicon.txt"

    @property
    def language_model(self) -> Path:
        return self.folder("lang") / "lm.arpa"

    @property
    def whole_language_model(self) -> Path:
        """The language model before it was pruned; only there if it was."""
        return self.folder("lang") / "lm_whole.arpa.gz"

    @property
    def own_larger_model(self) -> Path:
        """A larger language model that the corpus brings; only there if it does."""
        return self.folder("data") / "lm_larger.arpa"

    @property
    def g2p(self) -> Path:
        """The words whose pronunciations were made, with these; only there if lexicon.unknown_words asks for it."""
        return self.folder("lang") / "g2p.txt"

    def fbank(self, split: str) -> Path:
        return self.folder("fbank") / split

    # Gaussian mixtures, their graphs and the labels

    @property
    def mixtures(self) -> list[Path]:
        """The systems of Gaussian mixtures in the order in which they were trained; the networks predict the states of
        the last."""
        tied = json.loads((self.folder("tied") / "models.json").read_text()) if self.has("tied") else []
        return [self.folder("monophone"), *(self.folder("tied") / name for name in tied)]

    def graph(self, mixtures: Path) -> Path:
        """The decoding graph of a system of mixtures, by its folder."""
        return self.folder("graph") / mixtures.name

    def alignment(self, split: str) -> Path:
        """The frame store of a split, with its labels, and the transforms of its speakers."""
        return self.folder("alignment") / split

    @property
    def perturbed(self) -> Path:
        """The same of train's copies at other speeds."""
        return self.folder("alignment") / "perturbed"

    @property
    def states(self) -> Path:
        """How many states the labels are of, and which tree's."""
        return self.folder("alignment") / "states.json"

    # Networks

    def members(self, count: int) -> list[Path]:
        """The folders of the ensemble's members, the baseline first."""
        return [self.member(number) for number in range(1, count + 1)]

    def member(self, number: int) -> Path:
        return self.folder("baseline") if number == 1 else self.folder("ensemble") / f"member_{number:02d}"

    def student(self, run: Run) -> Path:
        temperature, generation, seed = run.of_student
        later = f"generation_{generation}_" if generation > 1 else ""
        return self.folder("students") / f"{later}temperature_{temperature:g}_seed_{seed}"

    @property
    def chosen_student(self) -> Path:
        """The temperature and the generation that dev chose."""
        return self.folder("students") / "chosen.json"

    def soft_targets(self, generation: int) -> Path:
        """The targets that a generation of students learns."""
        if generation == 1:
            return self.folder("soft_targets")
        return self.folder("students") / f"soft_targets_{generation}"

    def student_frames(self, unlabelled: bool) -> Path:
        """The frame store that students see; unlabelled: with audio without transcripts."""
        return self.folder("soft_targets") / "frames" if unlabelled else self.alignment("train")

    def regularized(self, targets: str, seed: int) -> Path:
        """A network on a small share of the data; targets: hard or soft."""
        return self.folder("regularization") / f"{targets}_seed_{seed}"

    # Results

    @property
    def language_models(self) -> Path:
        """The graph's language model and the larger one that scores lattices again, as arrays: first/ and larger/."""
        return self.folder("score") / "language_models"

    @property
    def results(self) -> Path:
        return self.folder("score") / "results.json"

    @property
    def comparisons(self) -> Path:
        return self.folder("score") / "comparisons.json"

    @property
    def g2p_results(self) -> Path:
        """Word errors without words whose pronunciations were made; only there if there are such."""
        return self.folder("score") / "g2p.json"

    @property
    def regularization_results(self) -> Path:
        return self.folder("score") / "regularization.json"


def read_choice(path: Path) -> tuple[float, int]:
    """The (temperature, generation) that dev chose, of `Experiment.chosen_student`."""
    choice = json.loads(path.read_text())
    return choice["temperature"], choice["generation"]


def student_runs(temperatures: Sequence[float], num_seeds: int, generations: int,
                 chosen: float) -> list[Run]:
    """Every student that stage 10 trains: one a temperature, and of the chosen one all seeds and generations."""
    return [Run("student", temperature, 1, 1) for temperature in temperatures if temperature != chosen] + [
        Run("student", chosen, generation, seed)
        for generation in range(1, generations + 1) for seed in range(1, num_seeds + 1)]


SEEDS_APART = 1_000_000  # so that no two draws of the experiment share a network
FIRST_SEED = {"member": 0, "student": 1000, "regularized": 2000, "realigned": 2000}  # of each kind of network
GENERATION_SEEDS = 10_000  # so that no student begins with its teachers' weights


def training_seed(kind: str, number: int, draw: int, generation: int = 1) -> int:
    """The seed of a network's first weights and of the order of its frames. kind: of FIRST_SEED; number: among its
    kind, from 1; draw: TrainingConfig.seed."""
    return draw * SEEDS_APART + GENERATION_SEEDS * (generation - 1) + FIRST_SEED[kind] + number
