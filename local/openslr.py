"""What openslr.org publishes of LibriSpeech: subsets (resource 12), the mini corpus (31), lexicon and LMs (11).

openslr.sums pins them: algorithm, digest, bytes, the path below the publisher's or a mirror's address. The SHA-256 of
resource 12 are those of torchaudio.datasets, the MD5 of 31 and 11 the publisher's md5sum.txt as others' recipes have
them, the sizes those of Kaldi's local/download_and_untar.sh and download_lm.sh.
"""

from pathlib import Path

from decant.download import Pinned, fetch, unpacked
from local.librispeech_layout import FOLDER

PUBLISHER = "https://www.openslr.org"
LEXICON = "librispeech-lexicon.txt"


def published() -> dict[str, tuple[str, Pinned]]:
    """{file name: (path below the publisher's address, what it has to be)}."""
    lines = map(str.split, Path(__file__).with_suffix(".sums").read_text().splitlines())
    return {Path(path).name: (path, Pinned(int(size), algorithm, digest)) for algorithm, digest, size, path in lines}


def language_models() -> list[str]:
    return [name for name in published() if name.endswith(".arpa.gz")]


def subsets() -> list[str]:
    return [name.removesuffix(".tar.gz") for name in published() if name.endswith(".tar.gz")]


def fetch_file(name: str, directory: Path, mirror: str) -> Path:
    """A published file in `directory`, fetched if it is not there. Raises ValueError if it cannot be had."""
    path, pinned = published()[name]
    fetch(f"{mirror.rstrip('/')}/{path}", directory / name, pinned)
    return directory / name


def fetch_subset(subset: str, directory: Path, mirror: str) -> None:
    """`directory`/LibriSpeech/SUBSET and the lists beside it (SPEAKERS.TXT ...), fetched if they are not there; the
    subset's folder appears when all is there. Raises ValueError for a subset that is not published, or cannot be had.
    """
    root = directory / FOLDER
    if (root / subset).is_dir():
        return
    if subset not in subsets():
        raise ValueError(f"{subset}: not a published subset; known are {', '.join(subsets())}; give a folder that has "
                         "it as --corpus")
    try:
        archive = fetch_file(f"{subset}.tar.gz", directory, mirror)
    except ValueError as error:
        raise ValueError(f"{error}; give a folder that has {subset} as --corpus, or a mirror as data.mirror") from error
    root.mkdir(exist_ok=True)
    with unpacked(archive) as folder:
        if not (folder / FOLDER / subset).is_dir():
            raise ValueError(f"{archive}: has no {FOLDER}/{subset}; give a folder that has it as --corpus")
        for path in (folder / FOLDER).glob("*.TXT"):
            path.replace(root / path.name)
        (folder / FOLDER / subset).rename(root / subset)
    archive.unlink()
