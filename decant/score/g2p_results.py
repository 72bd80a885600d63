"""Word error rates without the words whose pronunciations G2P made (decant/lang/g2p.py), beside those with them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from decant.files import atomic_path
from decant.lang.g2p import read_g2p
from decant.score.scoring import read_alignments, word_errors, word_errors_without
from decant.score.systems import System


@dataclass(frozen=True)
class G2pRow:
    """A run's word errors at the other words of the references; made: how many words of the references were made."""

    system: str
    variant: str
    split: str
    made: int
    words: int  # in the references, those left out included
    errors: int  # at all of them
    errors_without: int

    @property
    def note(self) -> str:
        without, with_them = self.errors_without / max(self.words - self.made, 1), self.errors / self.words
        return (f"{f'{self.system} {self.variant}'.strip()}, {self.split}: WER {100 * without:.1f}% without the "
                f"{self.made} of {self.words} words whose pronunciations G2P made, {100 * with_them:.1f}% with them.")


def g2p_rows(details: Path, systems: Sequence[System], splits: Sequence[str], made: Path) -> Iterable[G2pRow]:
    """A row for each run that was scored on a split, from its alignments in the folder `details`; `made`: g2p.txt."""
    excluded = read_g2p(made)
    for system in systems:
        for split in splits:
            if (path := details / f"{system.label}_{split}.txt").exists():
                refs, hyps = read_alignments(path)
                every, others = word_errors(refs, hyps), word_errors_without(refs, hyps, excluded)
                yield G2pRow(system.run.system, system.run.variant, split, every.words - others.words, every.words,
                             every.total, others.total)


def write_g2p_rows(path: Path, rows: Iterable[G2pRow]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def g2p_notes(path: Path) -> list[str]:
    """A sentence for each system and test set, its runs together; for splits that have no such words, none."""
    together: dict[tuple[str, str, str], G2pRow] = {}
    for found in json.loads(path.read_text()):
        row = G2pRow(**found)
        key = row.system, row.variant, row.split
        one = together.get(key, G2pRow(*key, 0, 0, 0, 0))
        together[key] = G2pRow(*key, one.made + row.made, one.words + row.words, one.errors + row.errors,
                               one.errors_without + row.errors_without)
    return [row.note for row in together.values() if row.made]
