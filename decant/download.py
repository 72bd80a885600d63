"""Files from their publishers, whole or not there: resumed, tried again, held against size and hash; archives unpacked
without letting anything out of their folder.
"""

import errno
import gzip
import hashlib
import http.client
import logging
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from decant.disk import sync, sync_all
from decant.progress import progress

TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 6  # in a row that bring nothing new
LONGEST_PAUSE = 60.0  # seconds
BLOCK = 2**20  # bytes
AGAIN = (408, 416, 425, 429, 500, 502, 503, 504)  # HTTP statuses after which another attempt may do better
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pinned:
    """What a file has to be. digest: hexadecimal, by `algorithm`, of hashlib's (sha256, md5)."""

    size: int  # bytes
    algorithm: str
    digest: str


class WrongFile(Exception):
    """What was received is not the file that was asked for."""


def fetch(url: str, path: Path, pinned: Pinned | None = None, pause: float = 1.0) -> None:
    """Fetches a file, unless it is there. `path` appears when all of it is there and is what `pinned` says.

    What has come lies in `PATH.part` until then, and the next attempt or run goes on from there, if the server can. An
    attempt follows after a pause of `pause` seconds, doubled each time, as long as one of the last 6 brought more. A
    whole file that is not what was pinned is thrown away and fetched once more.
    Raises ValueError naming the address where it cannot be had or is another file twice, OSError where the disk has no
    room.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part, most, in_vain, wrong = path.with_name(f"{path.name}.part"), 0, 0, 0
    check_room(part, pinned)
    while True:
        try:
            receive(url, part, pinned)
            check(part, pinned)
            break
        except WrongFile as error:
            part.unlink(missing_ok=True)
            most, wrong, reason = 0, wrong + 1, str(error)
            if wrong == 2:
                raise ValueError(f"{url}: not the file that was expected, twice ({reason})") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                error.filename = error.filename or str(part)
                raise
            if hopeless(error):
                raise ValueError(f"{url}: cannot be fetched ({error})") from error
            reason = str(error) or type(error).__name__
        size = part.stat().st_size if part.exists() else 0
        most, in_vain = max(most, size), 0 if size > most else in_vain + 1
        if in_vain == ATTEMPTS:
            raise ValueError(f"{url}: cannot be fetched ({reason}); {size} bytes of it are in {part}, and another run "
                             "goes on from there")
        seconds = min(pause * 2**in_vain, LONGEST_PAUSE)
        log.warning("%s: %s; %d bytes are here; again in %g s", url, reason, size, seconds)
        time.sleep(seconds)
    sync(part)
    part.rename(path)
    sync(path.parent)


def hopeless(error: Exception) -> bool:
    """Whether another attempt would end as this one did."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code not in AGAIN
    return isinstance(error, urllib.error.URLError) and isinstance(error.reason, FileNotFoundError)  # of file://


def check_room(part: Path, pinned: Pinned | None) -> None:
    """Raises OSError if the disk has no room for what has not come yet."""
    there = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if pinned and pinned.size - there > free:
        raise OSError(errno.ENOSPC, f"{(pinned.size - there) / 1e9:.1f} GB are to come, and {free / 1e9:.1f} GB are "
                      "free; make room", str(part))


def receive(url: str, part: Path, pinned: Pinned | None) -> None:
    """Lets `part` grow to the whole file. Raises OSError or HTTPException if the connection ends before, WrongFile if
    the server's file has another size."""
    have = part.stat().st_size if part.exists() else 0
    if pinned and have == pinned.size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the server has no bytes after those: they cannot be this file's
            part.unlink()
        raise
    with answer:
        resumed = getattr(answer, "status", None) == 206
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise OSError("the server sent other bytes than it was asked for")
        length = answer.headers.get("Content-Length")
        total = None if length is None else int(length) + (have if resumed else 0)
        if pinned and total not in (None, pinned.size):
            raise WrongFile(f"{total} bytes, where the publisher's has {pinned.size}")
        blocks = iter(lambda: answer.read(BLOCK), b"")
        megabytes = None if total is None else -(-total // BLOCK)
        with part.open("ab" if resumed else "wb") as file:
            done = file.tell()
            for block in progress(blocks, megabytes, f"{part.stem}, megabytes", done // BLOCK):
                done += len(block)
                if pinned and done > pinned.size:
                    raise WrongFile(f"more than the {pinned.size} bytes of the publisher's")
                file.write(block)
    if done < (total if total is not None else pinned.size if pinned else 0):
        raise OSError(f"the connection ended at {done} of {total or 'more'} bytes")


def check(path: Path, pinned: Pinned | None) -> None:
    """Raises WrongFile if a file is not what was pinned."""
    if pinned is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(pinned.algorithm, usedforsecurity=False)).hexdigest()
    if path.stat().st_size != pinned.size or digest != pinned.digest:
        raise WrongFile(f"{path.stat().st_size} bytes with {pinned.algorithm} {digest}, where the publisher's has "
                        f"{pinned.size} and {pinned.digest}")


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """A folder beside a tar archive with all that is in it, on disk; it is gone when the block ends: rename out of it
    what is to stay.

    Raises ValueError for an archive that is damaged or has a member other than files and folders below its own root
    (absolute names, `..`, links, devices).
    """
    folder = archive.with_name(f"{archive.name}.unpacked")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir()
    try:
        try:
            with tarfile.open(archive, "r|*") as tar:
                for member in progress(tar, None, f"{archive.name}, members unpacked"):
                    check_member(member)
                    tar.extract(member, folder, filter="data")
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{archive}: damaged, or no archive ({error})") from error
        except ValueError as error:
            raise ValueError(f"{archive}: {error}") from error
        sync_all(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_member(member: tarfile.TarInfo) -> None:
    """Raises ValueError for what is no file or folder, or would lie outside."""
    name = PurePosixPath(member.name)
    if not (member.isreg() or member.isdir()):
        raise ValueError(f"its member {member.name} is a link or a device, which is refused")
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"its member {member.name} would land outside, which is refused")
