#!/usr/bin/env bash
# speechocean762, English sentences read by Mandarin speakers: from the recordings to the paper's table.
# Usage: recipes/speechocean762/run.sh --corpus DIR [--stage N] [--stop-stage M] [--list] ...; see README.md.
set -euo pipefail
export DECANT_FROM="${DECANT_FROM:-$PWD}" && cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. steps/start.sh speechocean762 "$@"

# The published split as data directories, dev speakers taken out of train; the corpus's lexicon without stress
stage 0 data --config data -- local/speechocean762.py

. steps/stages.sh
