"""Language models as arrays on disk, which all processes that score with one map and share: words.txt, and for each
length n of n-grams N_keys.npy, N_log10_probs.npy, N_backoffs.npy (decant.lang.ngram_model.Section)."""

from pathlib import Path

import numpy as np

from decant.files import atomic_path
from decant.lang.ngram_model import NgramModel, Section
from decant.text import read_lines

ARRAYS = ("keys", "log10_probs", "backoffs")


def write_mapped(model: NgramModel, folder: Path) -> None:
    """Writes the arrays, probabilities in float32: 16 bytes an n-gram, 12 of the longest; words.txt comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for order, section in enumerate(model.sections, start=1):
        for name in ARRAYS:
            array = getattr(section, name)
            with atomic_path(folder / f"{order}_{name}.npy") as path:
                np.save(path, array if name == "keys" else array.astype(np.float32, copy=False), allow_pickle=False)
    with atomic_path(folder / "words.txt") as path:
        path.write_text("".join(f"{word}\n" for word in model.words), encoding="utf-8")


def read_mapped(folder: Path) -> NgramModel:
    """The model of a folder that `write_mapped` wrote, its arrays mapped. Raises FileNotFoundError for one that is not
    whole."""
    words = [word for _, [word] in read_lines(folder / "words.txt")]
    sections: list[Section] = []
    while (folder / f"{len(sections) + 1}_keys.npy").exists():
        sections.append(Section(*(np.load(folder / f"{len(sections) + 1}_{name}.npy", mmap_mode="r",
                                          allow_pickle=False) for name in ARRAYS)))
    return NgramModel.from_arrays(words, sections)
