# make demo   the default recipe, from nothing to its table
# make test   the tests
# Both make the environment .venv first, if it is not there or requirements.txt changed. PYTHON=python3.12 chooses another.

PYTHON ?= python3
.DELETE_ON_ERROR:

demo: .venv/installed
	recipes/espeak/run.sh

test: .venv/installed
	.venv/bin/python -m pytest -q

.venv/installed: requirements.txt setup.py
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11, 4) <= v[:3] < (3, 13) else "Python 3.11 (from 3.11.4) or 3.12 is needed, not %d.%d.%d: make PYTHON=python3.12 ..." % v[:3])'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint requirements.txt --editable '.[demo,dev]'
	touch $@

.PHONY: demo test
