#!/usr/bin/env bash
# Synthetic speech from eSpeak NG, made on the spot: no download, no licence to sign, the same samples every time.
# Usage: recipes/espeak/run.sh [--stage N] [--stop-stage M] [--list] [--corpus DIR] ...; see README.md.
set -euo pipefail
export DECANT_FROM="${DECANT_FROM:-$PWD}" && cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. steps/start.sh espeak "$@"

# Recordings of made-up speakers, their lexicon, and text for the language model
stage 0 data --config data -- local/espeak.py

. steps/stages.sh
