# Sourced by every recipe's run.sh as `. steps/start.sh RECIPE "$@"`, in the repository's root: reads the options
# (steps/configure.py, which starts run.sh once more) and defines `stage`, the bookkeeping (steps/stage.py).

if [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/python ]; then
  export PATH="$PWD/.venv/bin:$PATH"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "${DECANT_RUN:-}" ]; then
  exec python -m steps.configure "$0" "$@"
fi

stage() { python steps/stage.py "$@"; }
