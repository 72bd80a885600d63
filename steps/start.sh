# Sourced by every recipe's run.sh as `. steps/start.sh RECIPE "$@"`, in the repository's root: reads the options
# (steps/configure.py, which starts run.sh once more) and defines `stage`, the bookkeeping (steps/stage.py).

if [ -z "${VIRTUAL_ENV:-}" ]; then
  [ -x .venv/bin/python ] || { echo "error: there is no environment yet; run: make .venv/installed" >&2; exit 1; }
  export PATH="$PWD/.venv/bin:$PATH"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "${DECANT_RUN:-}" ]; then
  exec python -m steps.configure "recipes/$1/run.sh" "$@"
fi

stage() { python steps/stage.py "$@"; }
