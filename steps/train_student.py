"""One student of stage 10."""

from pathlib import Path

from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargetsConfig, read_soft_targets
from decant.distill.students import Lessons, Targets, soft_labels
from decant.experiment import Run, training_seed
from decant.nnet.acoustic_model import AcousticModelConfig
from decant.nnet.frame_store import training_frames
from decant.nnet.model_training import load_models, read_task, train_new_models
from decant.nnet.training import TrainingConfig
from steps.stage_program import Stage


def train_student(stage: Stage, run: Run, teachers: tuple[Path, ...], source: dict) -> None:
    """teachers: the folders of the models that teach; source: what their soft targets are made from, if stored."""
    sizes, teaching, config, training = stage.config(
        acoustic_model=AcousticModelConfig, soft_targets=SoftTargetsConfig, distillation=DistillationConfig,
        student_training=TrainingConfig)
    experiment, (temperature, generation, seed) = stage.experiment, run.of_student
    store = training_frames(experiment.student_frames(bool(teaching.unlabelled)), stage.device, sizes.window,
                            training.shuffle_frames)
    live = LiveTargets([] if teaching.stored else load_models(teachers, stage.device), teaching, temperature)

    def targets(number: int) -> Targets:
        if not teaching.stored:
            return live
        return read_soft_targets(experiment.soft_targets(generation), number, temperature, source,
                                 pool=training.shuffle_frames)

    num_passes = teaching.passes(len(store))
    if not teaching.stored and num_passes > 1:
        num_passes = training.epochs
    lessons = Lessons(len(store), training.epochs, num_passes, targets, training.shuffle_frames)
    task = read_task(experiment.folder("alignment"), experiment.fbank("train"), stage.device).taught_by(teachers[0])
    train_new_models(task, sizes, [training_seed("student", seed, training.seed, generation)], len(store),
                     soft_labels(store, sizes.window, lessons, temperature, config, training.label_smoothing),
                     training, [experiment.student(run)])
