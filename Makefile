# make demo   the default recipe, from nothing to its table
# make test   ruff, the imports' contract, the type checker, then the tests
# Both make the environment .venv first, if it is not there or requirements.txt changed. PYTHON=python3.12 chooses another.
# make test-k2   the tests of decant.search.k2_search, in an environment of its own, .venv-k2: Python 3.11, PYTHON_K2=... names it

PYTHON ?= python3
PYTHON_K2 ?= python3.11
.DELETE_ON_ERROR:

demo: .venv/installed
	recipes/espeak/run.sh

test: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/lint-imports --no-logo
	.venv/bin/mypy
	.venv/bin/python -m pytest -q --ignore tests/k2 --ignore tests/engines

test-k2: .venv/installed .venv-k2/installed
	.venv-k2/bin/python -m pytest -q tests/k2
	.venv/bin/python -m pytest -q tests/engines

.venv/installed: requirements.txt setup.py
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11, 4) <= v[:3] < (3, 13) else "Python 3.11 (from 3.11.4) or 3.12 is needed, not %d.%d.%d: make PYTHON=python3.12 ..." % v[:3])'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint requirements.txt --editable '.[demo,dev]'
	touch $@

.venv-k2/installed: requirements-k2.txt
	$(PYTHON_K2) -c 'import sys; v = sys.version_info; sys.exit(None if v[:2] == (3, 11) else "k2 needs Python 3.11, not %d.%d: make PYTHON_K2=python3.11 ..." % v[:2])'
	$(PYTHON_K2) -m venv .venv-k2
	.venv-k2/bin/pip install --quiet --require-hashes --no-deps --requirement requirements-k2.txt
	touch $@

.PHONY: demo test test-k2
