"""Lattices from kaldi-decoder's LatticeSimpleDecoder, as arrays.

It finds the paths that FasterDecoder chooses from, at five times the work for the same beam (AN4), and has no limit to
the states of a frame, so that its beam is a setting of its own. kaldifst hands out a lattice's arcs one Python call at
a time; a file of OpenFst's "vector" type is read at once (vector-fst.h).

The letters: T frames, S pdf-ids, N states, A arcs.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import kaldi_decoder
import kaldifst
import numpy as np

from decant.search.lattice import Lattice, frames_before

# Magic number; "vector" and "lattice4", each after its length; version, flags, properties; start, states, arcs.
_HEADER = struct.Struct("<ii6si8siiQqqq")
_MAGIC, _VERSION = 2125659606, 2
_STATE = np.dtype([("graph_cost", "<f4"), ("acoustic_cost", "<f4"), ("arcs", "<i8")])  # of ending here
_ARC = np.dtype([("input", "<i4"), ("output", "<i4"), ("graph_cost", "<f4"), ("acoustic_cost", "<f4"),
                 ("target", "<i4")])
_WORD = 4  # bytes, of which states and arcs are multiples


def search_lattice(fst: kaldifst.StdConstFst, words: Sequence[tuple[str, ...]], log_likelihoods: np.ndarray,
                   lm_weight: float, beam: float, lattice_beam: float, scratch: Path) -> tuple[Lattice | None, bool]:
    """The paths through the graph that cost at most `lattice_beam` more than the best one, and whether they end in
    final states; else they end anywhere. None where the beam holds no path to the end.

    words: by output label. log_likelihoods: [T, S], all finite. scratch: a file to write.
    """
    config = kaldi_decoder.LatticeSimpleDecoderConfig(beam=beam, lattice_beam=lattice_beam)
    decoder = kaldi_decoder.LatticeSimpleDecoder(fst, config)
    scaled = np.float32(log_likelihoods / lm_weight)
    decoder.decode(kaldi_decoder.DecodableCtc(scaled))  # an input label less 1 is a column
    found, raw = decoder.get_raw_lattice()
    if not found:
        return None, False
    if not raw.write(str(scratch)):
        raise OSError(f"{scratch}: cannot be written; is the disk full?")
    return read_lattice(scratch, words, lm_weight), bool(np.isfinite(decoder.final_relative_cost()))


def read_lattice(path: Path, words: Sequence[tuple[str, ...]], lm_weight: float) -> Lattice:
    """The lattice of a file of type vector, whose acoustic costs are divided by the LM weight, with one final state.

    States are sorted by frames, and within a frame along its epsilon arcs. Raises ValueError for another kind of file.
    """
    data = Path(path).read_bytes()
    magic, _, kind, _, arc_type, version, flags, _, start, num_states, _ = _HEADER.unpack_from(data)
    if (magic, kind, arc_type, version, flags) != (_MAGIC, b"vector", b"lattice4", _VERSION, 0):
        raise ValueError(f"{path} is not an OpenFst file of type vector and lattice arcs without symbol tables")
    states, sources, arcs = _states_and_arcs(np.frombuffer(data, "<i4", offset=_HEADER.size), num_states)
    emitting = arcs["input"] > 0
    levels = _levels(num_states, start, sources, arcs["target"].astype(np.int64), emitting)
    order = np.argsort(levels, kind="stable")
    if order[0] != start:
        raise ValueError(f"{path}: its paths do not all begin in state {start}")
    number = np.empty(num_states, np.int32)
    number[order] = np.arange(num_states)

    ends = np.flatnonzero(np.isfinite(states["graph_cost"]))
    all_sources = np.concatenate([number[sources], number[ends]])
    by_source = np.argsort(all_sources, kind="stable")
    targets = np.concatenate([number[arcs["target"]], np.full(len(ends), num_states, np.int32)])
    graph, acoustic = (np.concatenate([arcs[name], states[name][ends]]).astype(np.float64)
                       for name in ("graph_cost", "acoustic_cost"))
    labels = np.concatenate([arcs["output"], np.zeros(len(ends), np.int32)])
    return Lattice(all_sources[by_source], targets[by_source], graph[by_source], acoustic[by_source] * lm_weight,
                   labels[by_source], words, np.append(levels[order], levels.max() + 1))


def _states_and_arcs(data: np.ndarray, num_states: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a file's content after its header, int32: _STATE [N], the source of each arc, _ARC [A]."""
    state_size, arc_size = _STATE.itemsize // _WORD, _ARC.itemsize // _WORD
    numbers, places, place = data.tolist(), [], 0
    for _ in range(num_states):
        places.append(place)
        place += state_size + arc_size * numbers[place + 2]
    is_state = np.zeros(len(data), bool)
    is_state[(np.array(places)[:, None] + np.arange(state_size))] = True
    states = data[is_state].view(_STATE)
    return states, np.repeat(np.arange(num_states), states["arcs"]), data[~is_state].view(_ARC)


def _levels(num_states: int, start: int, sources: np.ndarray, targets: np.ndarray,
            emitting: np.ndarray) -> np.ndarray:
    """For each state a number, int32 [N], that is higher than those of the states before it: by frames, then by the
    epsilon arcs on the longest way to it from the frame's beginning."""
    frames = frames_before(num_states, start, sources, targets, emitting)
    epsilons = np.zeros(num_states, np.int32)
    sources, targets = sources[~emitting], targets[~emitting]
    while (late := epsilons[targets] <= epsilons[sources]).any():
        if epsilons.max() > len(sources):
            raise ValueError("the decoding graph has a cycle of arcs without pdf-ids; build it again (stage 5)")
        np.maximum.at(epsilons, targets[late], epsilons[sources[late]] + 1)
    return frames * (epsilons.max() + 1) + epsilons
