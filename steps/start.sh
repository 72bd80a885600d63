# Sourced by every recipe's run.sh as `. steps/start.sh RECIPE "$@"`, in the repository's root: reads the options
# (steps/configure.py, which starts run.sh once more) and defines `stage`, the bookkeeping (steps/stage.py).

if [ -x .venv/bin/python ]; then
  export PATH="$PWD/.venv/bin:$PATH"
elif [ -z "${VIRTUAL_ENV:-}" ]; then
  echo "error: there is no environment yet; run: make .venv/installed" >&2
  exit 1
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# glibc would give each minibatch's arrays back to the system, whose pages then fault in again: 3 ms of a step of 26.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-33554432}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-1073741824}"
if [ -z "${DECANT_RUN:-}" ]; then
  exec python -m steps.configure "recipes/$1/run.sh" "$@"
fi

# Stages that the recipe leaves out, by their numbers: see steps/stages.sh.
SKIP_STAGES=""
left_out=""

stage() {
  for skipped in $SKIP_STAGES; do
    case $skipped in
      [1-9] | 1[0-4]) ;;
      *) echo "error: SKIP_STAGES: $skipped is no stage's number; give numbers with spaces between" >&2 && exit 1 ;;
    esac
  done
  case " $SKIP_STAGES " in *" $1 "*) left_out="$left_out $2" ;; esac
  DECANT_PARENT=$BASHPID DECANT_LEFT_OUT=$left_out python steps/stage.py "$@"
}
