"""Stage 0 of mini LibriSpeech (openslr.org/31), which is laid out as LibriSpeech is: local/librispeech.py."""

from local.librispeech import CorpusConfig, main
from steps.stage_program import run_step

__all__ = ["CorpusConfig"]

if __name__ == "__main__":
    run_step(main)
