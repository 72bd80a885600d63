#!/usr/bin/env bash
# Mini LibriSpeech, 5 hours of read books to train on: from the recordings to the paper's table.
# Usage: recipes/mini_librispeech/run.sh [--stage N] [--stop-stage M] [--list] [--plan] [--corpus DIR] ...; see README.md.
set -euo pipefail
export DECANT_FROM="${DECANT_FROM:-$PWD}" && cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. steps/start.sh mini_librispeech "$@"

# The config's subsets as data directories, fetched unless --corpus has them; lexicon and LM
stage 0 data --config data -- local/mini_librispeech.py

. steps/stages.sh
