"""How far long work has come: a bar on a terminal, elsewhere a line a minute."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60

Item = TypeVar("Item")


def progress(iterable: Iterable[Item], total: int | None, desc: str, initial: int = 0) -> Iterator[Item]:
    """The items of `iterable`, while stderr shows how many of `total` are done and how long the rest will take.

    `initial` of them were done before. Of several processes that torchrun started, the first one shows it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield from iterable
        return
    if sys.stderr.isatty():
        yield from tqdm(iterable, desc, total, initial=initial, dynamic_ncols=True, leave=False)
        return
    start = printed = time.monotonic()
    for done, item in enumerate(iterable, start=initial + 1):
        yield item
        if (now := time.monotonic()) - printed >= SECONDS_BETWEEN_LINES:
            line = tqdm.format_meter(done, total, now - start, prefix=desc, ascii=True, initial=initial)
            print(line, file=sys.stderr, flush=True)
            printed = now
