# Every target makes .venv when it is missing or older than the files that define it; Python 3.11 or newer is all it needs.

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
SEED ?= 0

bin := $(VENV)/bin/python
pip := $(bin) -m pip --disable-pip-version-check
zensical := zensical==0.0.73

.PHONY: demo label test check soak gpu docs clean

demo: $(VENV)/core-installed
	$(bin) -m tuneful demo --out $(OUT) --seed $(SEED)

# A smaller demo world, labeled by its own people, with a place for you on every item; then its pages.
label: $(VENV)/core-installed
	$(bin) -m tuneful run recipes/demo_label.toml --out runs/label
	$(bin) -m tuneful web --store runs/label/labels/judgments.db

# One worker for each core, eight at most for the memory they take. The tests of a file share what they make, so a file
# stays with one worker; in the order of their names the longest files are not the last.
test: $(VENV)/dev-installed
	$(bin) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: $(VENV)/dev-installed
	$(bin) -m ruff format --check .
	$(bin) -m ruff check .
	$(bin) -m mypy
	$(bin) -m pytest -q tests/architecture/test_floors.py

soak: $(VENV)/dev-installed
	$(bin) -m pytest -m soak

gpu: $(VENV)/dev-installed
	TUNEFUL_TEST_GPU=1 $(bin) -m pytest -m gpu

docs: $(VENV)/docs-installed
	$(bin) -m zensical build --strict

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# torch comes first and alone, so that pip's own configuration decides which build it is; nothing after replaces it.
$(VENV)/core-installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tuneful needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	@$(bin) -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(pip) install --quiet --constraint constraints.txt torch hatchling
	$(pip) install --quiet --constraint constraints.txt --no-build-isolation --editable .
	@touch $@

$(VENV)/dev-installed: $(VENV)/core-installed
	$(pip) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/docs-installed: $(VENV)/core-installed
	$(pip) install --quiet --constraint constraints.txt $(zensical)
	@touch $@
