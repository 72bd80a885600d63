"""Labels of a split, shard by shard (decant.hmm.shards): each utterance's pdf-ids by forced alignment, each speaker's
transform where the mixtures are adapted.

A folder's task.json says how. Of every shard there are labels/SHARD.scp, fmllr/SHARD.scp and, last, without/SHARD.json:
the utterances that have no labels, each with the reason, and whether it is that the lexicon lacks one of its words.

`python -m decant.search.shard_labels FOLDER SHARD` does one shard.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from decant.feat.archive import read_scp, write_int_vectors, write_matrices
from decant.feat.fmllr import affine
from decant.feat.front_end import read_transforms
from decant.files import atomic_path
from decant.hmm.labelling import graphs_of, too_short
from decant.hmm.shards import Words, read_shard
from decant.hmm.system import MixtureSystem, read_system
from decant.lang.lexicon import Lexicon, read_lexicon
from decant.search.adaptation import Adaptation, AdaptationConfig
from decant.search.engine import Engine


@dataclass(frozen=True)
class Labelling:
    """How a split is labelled.

    mixtures: the folder of the system whose states are the labels, and before it, if it is adapted, that of the system
    that recognises what new speakers say, with its graph. known: PREFIX of transforms that are there already, of
    training's speakers. words_are_known: those of others may be found with the transcripts. adapt_only: transforms are
    wanted alone.
    """

    mixtures: tuple[Path, ...]
    lexicon: Path
    graph: Path
    adaptation: AdaptationConfig
    engine: Engine
    known: Path | None = None
    words_are_known: bool = False
    adapt_only: bool = False

    def write(self, folder: Path) -> None:
        """Writes task.json, whose paths are absolute."""
        with atomic_path(folder / "task.json") as path:
            path.write_text(json.dumps(asdict(self), default=lambda of: str(of.absolute()), indent=1) + "\n")

    @property
    def system(self) -> MixtureSystem:
        return _system(self.mixtures[-1], self.lexicon)


@lru_cache(maxsize=1)
def read_labelling(folder: Path) -> Labelling:
    """What `Labelling.write` wrote."""
    given = json.loads((folder / "task.json").read_text())
    known, engine = given["known"], given["engine"]
    return Labelling(tuple(map(Path, given["mixtures"])), Path(given["lexicon"]), Path(given["graph"]),
                     AdaptationConfig(**given["adaptation"]), Engine(engine["name"], engine["device"]),
                     Path(known) if known else None, given["words_are_known"], given["adapt_only"])


def do_shard(folder: Path, shard: Path) -> None:
    """Does a shard as the folder's task.json says, unless it is done."""
    labelling = read_labelling(folder)
    (adapt_shard if labelling.adapt_only else label_shard)(labelling, shard, folder)


@lru_cache(maxsize=2)
def _system(folder: Path, lexicon: Path) -> MixtureSystem:
    return read_system(folder, _lexicon(lexicon))


@lru_cache(maxsize=1)
def _lexicon(path: Path) -> Lexicon:
    return read_lexicon(path)


def adaptation(labelling: Labelling, jobs: int = 1) -> Adaptation:
    """From the last two systems of mixtures, of which the first recognises what new speakers say."""
    config, setting = labelling.adaptation, (labelling.adaptation.lm_weight, 0.0)
    before, adapted = (_system(folder, labelling.lexicon) for folder in labelling.mixtures)

    def recognise(features: Mapping[str, Tensor]) -> Words:
        scored = ((utterance, before.form.log_likelihoods(x).numpy()) for utterance, x in features.items())
        return labelling.engine.decode(scored, labelling.graph, [setting], config, jobs)[setting].words

    return Adaptation(before, adapted, _lexicon(labelling.lexicon), recognise, config.passes, jobs)


def transforms_of(labelling: Labelling, features: Mapping[str, Tensor], speaker_of: Mapping[str, str],
                  words: Words) -> dict[str, Tensor]:
    """The transform of every speaker of the utterances; features: float32 [T, D], unadapted."""
    transforms = _known(labelling.known) if labelling.known else {}
    new = {utterance: x for utterance, x in features.items() if speaker_of[utterance] not in transforms}
    if new:
        transforms = transforms | adaptation(labelling).transforms(new, speaker_of,
                                                                   words if labelling.words_are_known else None)
    return {speaker: transforms[speaker] for speaker in sorted({speaker_of[utterance] for utterance in features})}


@lru_cache(maxsize=1)
def _known(prefix: Path) -> dict[str, Tensor]:
    return read_transforms(prefix)


def adapt_shard(labelling: Labelling, shard: Path, out: Path) -> dict[str, Tensor]:
    """Writes the transforms of a shard's speakers, unless they are there, and returns what the mixtures see adapted:
    float32 [T, D] of every utterance."""
    filterbanks, words = read_shard(shard)
    features = dict(filterbanks.for_mixtures(labelling.system.features))
    prefix = out / "fmllr" / shard.name
    if not Path(f"{prefix}.scp").exists():
        prefix.parent.mkdir(exist_ok=True)
        transforms = transforms_of(labelling, features, filterbanks.speaker_of, words)
        write_matrices(prefix, ((speaker, x.numpy()) for speaker, x in transforms.items()))
    transforms = read_transforms(prefix)
    return {utterance: affine(transforms[filterbanks.speaker_of[utterance]], x) for utterance, x in features.items()}


def label_shard(labelling: Labelling, shard: Path, out: Path) -> None:
    """Labels a shard into the folders of `out`, unless it is done."""
    done = out / "without" / f"{shard.name}.json"
    if done.exists():
        return
    filterbanks, words = read_shard(shard)
    system = labelling.system
    features = (adapt_shard(labelling, shard, out) if system.features.adapted else
                dict(filterbanks.for_mixtures(system.features)))
    graphs, lacking = graphs_of({utterance: words[utterance] for utterance in features}, _lexicon(labelling.lexicon),
                                system.transitions)
    engine = replace(labelling.engine, scratch=out)
    labels = engine.align(graphs, features, system.form.log_likelihoods, 1,
                          system.transitions.config.alignment_beam)
    for name in ("labels", "without"):
        (out / name).mkdir(exist_ok=True)
    write_int_vectors(out / "labels" / shard.name, sorted(labels.items()))
    with atomic_path(done) as path:
        path.write_text(json.dumps({"too_short": too_short(graphs, features, labels), "lacking": lacking}))


def without_labels(out: Path, shards: Sequence[Path]) -> tuple[dict[str, str], dict[str, str]]:
    """The utterances that are too short for their transcript, and those with a word that the lexicon lacks."""
    found = [json.loads((out / "without" / f"{shard.name}.json").read_text()) for shard in shards]
    return ({utterance: reason for one in found for utterance, reason in one["too_short"].items()},
            {utterance: reason for one in found for utterance, reason in one["lacking"].items()})


def labels_of(out: Path, shards: Sequence[Path]) -> dict[str, str]:
    """Where each utterance's labels are, for decant.feat.archive.read_int_vector; sorted."""
    scps = (out / "labels" / f"{shard.name}.scp" for shard in shards)
    return dict(sorted(place for scp in scps if scp.stat().st_size for place in read_scp(scp).items()))


def transforms_found(out: Path, shards: Sequence[Path]) -> dict[str, Tensor]:
    """Every speaker's transform, sorted."""
    return dict(sorted(item for shard in shards for item in read_transforms(out / "fmllr" / shard.name).items()))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m decant.search.shard_labels FOLDER SHARD")
    try:
        do_shard(Path(sys.argv[1]), Path(sys.argv[2]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
