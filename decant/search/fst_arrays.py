"""Weighted transducers as numpy arrays, read from and written to OpenFst's binary "const" files.

kaldifst composes and determinises, but hands out arcs one Python call at a time; a const file is two flat
arrays after a short header, so numpy reads and writes it at the disk's speed (OpenFst: const-fst.h, fst.cc).

Layout, little endian: magic number; the names "const" and "standard", each after its length; version 2; flags (bits 0
and 1: symbol tables follow, bit 2: aligned); property bits; start state; numbers of states and arcs; then the states
and the arcs as the dtypes below, in an aligned file each from a multiple of 16 bytes on. Weights are costs: negative
natural logarithms. What is written here is aligned, so that `map_fst` need not read it; kaldifst writes what is not.

The letters: N states, A arcs.
"""

import ctypes
import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from decant.files import atomic_path
from decant.text import read_fields

if TYPE_CHECKING:  # arrays are read and written where kaldifst is not installed, too (decant.search.k2_search)
    import kaldifst

ARC = np.dtype([("input", "<i4"), ("output", "<i4"), ("cost", "<f4"), ("target", "<i4")])
_STATE = np.dtype([("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("input_epsilons", "<u4"),
                   ("output_epsilons", "<u4")])
_HEADER = struct.Struct("<ii5si8siiQqqq")
_MAGIC, _VERSION, _EXPANDED, _ALIGNED = 2125659606, 2, 1, 4
_ALIGNMENT = 16


@dataclass(frozen=True)
class FstArrays:
    """start: a state. final: float32 [N], the cost of ending in each state, inf where one may not.

    arcs: ARC [A]; label 0 is epsilon. offsets: int64 [N + 1]: arcs[offsets[s]:offsets[s + 1]] leave state s.
    """

    start: int
    final: np.ndarray
    offsets: np.ndarray
    arcs: np.ndarray

    @property
    def sources(self) -> np.ndarray:
        """The state that each arc leaves, int64 [A]."""
        return np.repeat(np.arange(len(self.final)), np.diff(self.offsets))


def from_arcs(start: int, final: np.ndarray, sources: np.ndarray, arcs: np.ndarray) -> FstArrays:
    """The transducer whose arc i leaves state sources[i]; arcs of one state keep their order."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=len(final)))])
    return FstArrays(start, final, offsets, arcs[np.argsort(sources, kind="stable")])


def read_arrays(path: Path) -> FstArrays:
    """Read a const file; its arcs are mapped, and what is written to them stays in this process.

    Raises ValueError if it is another kind of file or cut short.
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ValueError(f"{path}: {size} bytes are too few for an OpenFst file; write it again")
    magic, _, kind, _, arc_type, version, flags, _, start, num_states, num_arcs = _HEADER.unpack(header)
    if (magic, kind, arc_type, version) != (_MAGIC, b"const", b"standard", _VERSION) or flags & ~_ALIGNED:
        raise ValueError(f"{path} is not an OpenFst file of type const and standard arcs, without symbol tables; "
                         "convert it with fstconvert --fst_type=const")
    alignment = _ALIGNMENT if flags else 1
    first_state = _HEADER.size + -_HEADER.size % alignment
    end_of_states = first_state + num_states * _STATE.itemsize
    first_arc = end_of_states + -end_of_states % alignment
    expected = first_arc + num_arcs * ARC.itemsize
    if size != expected:
        raise ValueError(f"{path}: {size} bytes where its header promises {expected}; write it again")
    states = np.fromfile(path, _STATE, num_states, offset=first_state)
    arcs = np.memmap(path, ARC, "c", first_arc, (num_arcs,)) if num_arcs else np.zeros(0, ARC)
    return FstArrays(start, states["final"].copy(), np.append(states["first"].astype(np.int64), num_arcs),
                     np.asarray(arcs))


def read_graph_arrays(graph_dir: Path, word_insertion_penalty: float) -> tuple[FstArrays, tuple[str, ...], int]:
    """The graph that decant.search.decoding_graph.build_graph wrote, with the penalty added to the cost of every word;
    the words by output label; the number of pdf-ids.

    Raises FileNotFoundError and ValueError for a graph that is not there or damaged.
    """
    num_pdfs = json.loads((graph_dir / "graph.json").read_text())["num_pdfs"]
    words = tuple(word for _, (word, *_) in read_fields(graph_dir / "words.txt"))
    fst = read_arrays(graph_dir / "HCLG.fst")
    arcs = fst.arcs
    if arcs["input"].max() > num_pdfs or arcs["output"].max() >= len(words):  # the searches would not notice
        raise ValueError(f"{graph_dir}: HCLG.fst has labels beyond the {num_pdfs} pdf-ids of graph.json or "
                         f"the {len(words)} symbols of words.txt; build the graph again (stage 5)")
    if word_insertion_penalty:
        arcs["cost"][arcs["output"] > 0] += word_insertion_penalty
    return fst, words, num_pdfs


def write_arrays(path: Path, fst: FstArrays) -> None:
    """Write a const file, aligned."""
    states = np.zeros(len(fst.final), _STATE)
    states["final"], states["first"], states["arcs"] = fst.final, fst.offsets[:-1], np.diff(fst.offsets)
    for name, label in (("input_epsilons", "input"), ("output_epsilons", "output")):
        epsilons = np.cumsum(np.append(0, fst.arcs[label] == 0), dtype=np.int32)
        states[name] = np.diff(epsilons[fst.offsets])
    header = _HEADER.pack(_MAGIC, 5, b"const", 8, b"standard", _VERSION, _ALIGNED, _EXPANDED, fst.start, len(states),
                          len(fst.arcs))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header + bytes(-len(header) % _ALIGNMENT))
        states.tofile(file)
        file.write(bytes(-states.nbytes % _ALIGNMENT))
        fst.arcs.astype(ARC, copy=False).tofile(file)


def map_fst(path: Path) -> "kaldifst.StdConstFst":
    """The transducer of a const file that `write_arrays` wrote, mapped into memory: nothing is read before it is used,
    and all processes that use it share it."""
    import kaldifst

    _let_openfst_map()
    return kaldifst.StdConstFst.read(str(path))


@cache
def _let_openfst_map() -> None:
    """Sets kaldifst's copy of OpenFst's flag --fst_read_mode, for which it has no function, to map.

    Flags are set in C++, std::string's own assign() to the flag: OpenFst's SetFlags would set the copy of whichever of
    kaldifst and kaldi_decoder was loaded first.
    """
    from kaldifst.lib import _kaldifst

    library = ctypes.CDLL(_kaldifst.__file__)
    flag = ctypes.c_char.in_dll(library, "_Z23FST_FLAGS_fst_read_modeB5cxx11")
    assign = library["_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE6assignEPKc"]
    assign.restype, assign.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)
    assign(ctypes.addressof(flag), b"map")


def to_fst(fst: FstArrays, scratch: Path) -> "kaldifst.StdVectorFst":
    """A kaldifst transducer that can be changed, by way of the file `scratch`."""
    import kaldifst

    write_arrays(scratch, fst)
    return kaldifst.StdVectorFst(kaldifst.StdConstFst.read(str(scratch)))
