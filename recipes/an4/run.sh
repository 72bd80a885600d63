#!/usr/bin/env bash
# CMU AN4, 48 minutes of spelled names, digits, dates and commands: from the recordings to the paper's table.
# Usage: recipes/an4/run.sh [--stage N] [--stop-stage M] [--list] [--corpus DIR] ...; see README.md.
set -euo pipefail
export DECANT_FROM="${DECANT_FROM:-$PWD}" && cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. steps/start.sh an4 "$@"

# The official split as data directories, dev speakers taken out of train; the corpus's dictionary and unigram
stage 0 data --config data -- local/an4.py

. steps/stages.sh
