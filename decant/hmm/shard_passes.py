"""Passes of training over shards (decant.hmm.shards): each a map over shards, whose sums are added up in their order.

A pass is a folder: task.json and the model that it works with; labels/SHARD and fmllr/SHARD, what it found; sums/SHARD,
which is there once a shard is done; in the end sums.safetensors, over all shards. One that is finished is not made
again, so that a training that was stopped goes through what it has and on.

`python -m decant.hmm.shard_passes PASS SHARD` does one shard of a pass.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from decant.feat.archive import read_int_vectors, read_matrices, write_int_vectors, write_matrices
from decant.feat.front_end import read_transforms
from decant.files import atomic_path, write_tensors
from decant.hmm.gmm_training import Labels, Part, Pass, Speakers, Sums, gather
from decant.hmm.shards import read_shard
from decant.hmm.state_tying import events_of
from decant.hmm.system import MixtureSystem, read_system, write_system
from decant.hmm.tied_training import add_tree, gather_events, gather_tree
from decant.lang.lexicon import Lexicon, read_lexicon
from decant.parallel import Workers


@dataclass(frozen=True)
class ShardPasses:
    """Passes over some shards: a decant.hmm.gmm_training.Gather. work: the folder of the passes."""

    work: Path
    shards: Sequence[Path]
    lexicon: Path
    workers: Workers

    def __call__(self, task: Pass, system: MixtureSystem) -> Sums:
        folder = self.work / task.name
        if not (folder / "sums.safetensors").exists():
            if not (folder / "task.json").exists():
                shutil.rmtree(folder, ignore_errors=True)
                write_system(folder, system)
                with atomic_path(folder / "task.json") as path:
                    path.write_text(json.dumps(asdict(task) | {"lexicon": str(self.lexicon.absolute())}) + "\n")
            for _ in self.workers.map(do_shard, [(folder, shard) for shard in self.shards], task.name):
                pass
            total: Sums = {}
            for shard in self.shards:
                more = load_file(folder / "sums" / f"{shard.name}.safetensors")
                total = add_tree(total, more) if task.kind == "tree" else {
                    name: total[name] + x if name in total else x for name, x in more.items()}
            write_tensors(folder / "sums.safetensors", total)
            self._forget(task)
        shutil.rmtree(folder / "sums", ignore_errors=True)
        return load_file(folder / "sums.safetensors")

    def _forget(self, task: Pass) -> None:
        """Removes what no later pass needs: labels and transforms before those that this one used or made."""
        for earlier in self.work.iterdir():
            if earlier.name != task.name:
                if earlier.name != (task.labels or earlier.name):
                    shutil.rmtree(earlier / "labels", ignore_errors=True)
                if earlier.name != (task.speakers or earlier.name):
                    shutil.rmtree(earlier / "fmllr", ignore_errors=True)

    def speakers(self, name: str) -> dict[str, np.ndarray]:
        """All speakers' transforms of a pass."""
        return dict(sorted(item for shard in self.shards
                           for item in read_matrices(self.work / name / "fmllr" / f"{shard.name}.scp")))


def do_shard(folder: Path, shard: Path) -> None:
    """Does one shard of the pass in `folder`, unless it is done."""
    sums = folder / "sums" / f"{shard.name}.safetensors"
    if sums.exists():
        return
    given = json.loads((folder / "task.json").read_text())
    lexicon_file = Path(given.pop("lexicon"))
    task, lexicon, system = Pass(**given), _lexicon(lexicon_file), _system(folder, lexicon_file)
    filterbanks, words = read_shard(shard)
    part = Part(dict(filterbanks.cepstra(system.features.num_cepstra)), words, filterbanks.speaker_of)
    labels: Labels = {}
    speakers: Speakers = {}
    if task.labels and not task.align:
        scp = folder.parent / task.labels / "labels" / f"{shard.name}.scp"
        labels = dict(read_int_vectors(scp)) if scp.stat().st_size else {}  # none of the shard could be aligned
    if task.speakers:
        speakers = read_transforms(folder.parent / task.speakers / "fmllr" / shard.name)
    if task.kind == "events":
        found = gather_events(task, system, part, lexicon)
    elif task.kind == "tree":
        found = gather_tree(system, part, lexicon, labels, speakers)
    else:
        if task.labels == "events":
            labels = {utterance: system.transitions.tree.label(events_of(keys.astype(np.int64), len(lexicon.phones)))
                      for utterance, keys in labels.items()}
        found = gather(task, system, part, lexicon, labels, speakers)
    for name in ("labels", "fmllr", "sums"):
        (folder / name).mkdir(exist_ok=True)
    if task.align or task.kind == "flat_start":
        write_int_vectors(folder / "labels" / shard.name, sorted(found.labels.items()))
    if task.adapt:
        write_matrices(folder / "fmllr" / shard.name,
                       ((speaker, found.speakers[speaker].numpy()) for speaker in sorted(found.speakers)))
    write_tensors(sums, found.sums)


@lru_cache(maxsize=1)
def _lexicon(path: Path) -> Lexicon:
    return read_lexicon(path)


@lru_cache(maxsize=1)
def _system(folder: Path, lexicon: Path) -> MixtureSystem:
    return read_system(folder, _lexicon(lexicon))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m decant.hmm.shard_passes PASS SHARD")
    try:
        do_shard(Path(sys.argv[1]), Path(sys.argv[2]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
