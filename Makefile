# make demo    opens the page on 127.0.0.1:7860      make demo ARGS="--port 8000"
# make test    runs all tests                        make test ARGS="-k page"
# make lint    checks style and formatting           make format puts the formatting right
# make bench   prints the table of all benchmarks    make bench ARGS="--markdown table.md"
# PYTHON chooses the interpreter, VENV the folder of the virtual environment.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

.PHONY: demo test bench lint format clean

demo: $(VENV)/.installed
	$(VENV)/bin/python app.py --open $(ARGS)

# In a process a core, up to four: each takes up to 3 GB. A file stays in one process, as its fixtures do.
test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

# Half an hour on two cores, which should have nothing else to do.
bench: $(VENV)/.installed
	$(VENV)/bin/python -m benchmarks $(ARGS)

# The rules are in pyproject.toml.
lint: $(VENV)/.installed
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

format: $(VENV)/.installed
	$(VENV)/bin/python -m ruff check --select I --fix .
	$(VENV)/bin/python -m ruff format .

# Made again only when requirements.txt changes.
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
