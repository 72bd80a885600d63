"""State graphs of many utterances in one file, as acceptors of pdf-ids: what k2 aligns with.

The file is numpy's .npz, without pickles: `num_pdfs`; `utterances`; `num_states` and `num_arcs` of each; then, for all
acceptors one after the other, `final`, `out_degree` (arcs that leave each state) and `arcs`, as in
decant.search.fst_arrays. Each starts in its state 0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from decant.files import atomic_path
from decant.search.fst_arrays import ARC, FstArrays, from_arcs

if TYPE_CHECKING:  # what decant.hmm.topology imports need not be there where files are only read
    from decant.hmm.topology import StateGraph


def acceptor(graph: "StateGraph") -> FstArrays:
    """The graph with labels pdf-id + 1 on the arcs into its states; a state's number is one higher than the graph's."""
    first = np.flatnonzero(np.isfinite(graph.initial))
    state, column = np.nonzero(np.isfinite(graph.log_probs))
    into = np.concatenate([first, state])
    arcs = np.zeros(len(into), ARC)
    arcs["input"], arcs["target"] = graph.pdfs[into] + 1, into + 1
    arcs["cost"] = -np.concatenate([graph.initial[first], graph.log_probs[state, column]])
    sources = np.concatenate([np.zeros_like(first), graph.predecessors[state, column] + 1])
    return from_arcs(0, np.append(np.inf, -graph.final).astype(np.float32), sources, arcs)


def write_acceptors(path: Path, acceptors: Mapping[str, FstArrays], num_pdfs: int) -> None:
    """Writes the acceptors of utterances, whose labels are up to `num_pdfs`."""
    fsts = list(acceptors.values())
    with atomic_path(path) as temporary:
        np.savez(
            temporary, num_pdfs=num_pdfs, utterances=np.array(list(acceptors)),
            num_states=[len(fst.final) for fst in fsts], num_arcs=[len(fst.arcs) for fst in fsts],
            final=np.concatenate([fst.final for fst in fsts]),
            out_degree=np.concatenate([np.diff(fst.offsets) for fst in fsts]),
            arcs=np.concatenate([fst.arcs for fst in fsts]),
        )


def read_acceptors(path: Path) -> tuple[dict[str, FstArrays], int]:
    """The acceptors and the number of pdf-ids of `write_acceptors`.

    Raises FileNotFoundError, and ValueError for another or a damaged file.
    """
    try:
        with np.load(path) as file:
            ends = np.cumsum(file["num_states"])
            states = zip(np.split(file["final"], ends[:-1]), np.split(file["out_degree"], ends[:-1]), strict=True)
            arcs = np.split(file["arcs"], np.cumsum(file["num_arcs"])[:-1])
            acceptors = {
                str(utterance): FstArrays(0, final, np.append(0, np.cumsum(out_degree)), its_arcs)
                for utterance, (final, out_degree), its_arcs in zip(file["utterances"], states, arcs, strict=True)
            }
            return acceptors, int(file["num_pdfs"])
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path}: not a whole file of state graphs ({error}); write it again") from error
