# Everything that a person types here. `make` alone explains.
.DEFAULT_GOAL := help
.PHONY: help setup run demo test bench chaos pictures lint lock wheel clean

# Any Python 3.8 or newer with venv can make the environment; the one in it is 3.10.
PYTHON ?= python3
BIN := .venv/bin
UV := .otn/boot/bin/uv
# Their times say whether something must be made again, so that a second `make` costs nothing.
ENVIRONMENT := .venv/up-to-date

BOOTSTRAP = set -- "$(PYTHON)" /usr/bin/python3 "$$HOME"/.pyenv/versions/3.*/bin/python3; \
	for python; do \
		"$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && break; \
	done || { echo "No Python 3.8 or newer with venv here. Debian, Ubuntu: apt-get install python3-venv" >&2; exit 2; }; \
	"$$python" otn/dev/bootstrap.py
COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --custom-compile-command 'make lock' \
	$(if $(UPGRADE),--upgrade)

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Whole files, in their order: what a file starts (a PostgreSQL, a bot) is started once. More than two need more memory.
TWO_FILES_AT_ONCE := --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Rasa and its libraries only speak when something is wrong.
export RASA_TELEMETRY_ENABLED := false
export SQLALCHEMY_SILENCE_UBER_WARNING := 1
export TF_CPP_MIN_LOG_LEVEL := 3

help: ## List what can be typed
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: $(ENVIRONMENT) ## Make the environment, .env, the database and a trained model; does only what is missing
	@$(BIN)/otn init
	@$(BIN)/python -m otn.dev.train

run: setup ## Start everything in the Procfile and stay in the foreground; Ctrl-C stops it
	@$(BIN)/python -m otn.dev.up

demo: $(ENVIRONMENT) ## Play the whole path by script, from the first message to a refused second send
	@$(BIN)/python -m otn.dev.train
	@$(BIN)/python -m otn.dev.demo

pictures: $(ENVIRONMENT) ## Make the pictures in docs/images anew, in a headless Chromium
	@$(BIN)/python -m otn.dev.browser
	@PYTHONPATH=. $(BIN)/python tests/screenshots.py

lint: $(ENVIRONMENT) ## Check style, formatting and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

test: lint ## Run everything that CI runs: lint, the bot's data, its stories, all tests
	@$(BIN)/python -m otn.dev.check_bot
	@$(BIN)/python -m otn.dev.browser
	@$(BIN)/pytest -q --disable-warnings $(TWO_FILES_AT_ONCE)

bench: $(ENVIRONMENT) ## Measure speed and memory against named peers; takes minutes (docs/performance.md)
	@$(BIN)/python -m benchmarks

chaos: $(ENVIRONMENT) ## Kill `rasa run` and `otn worker` at random moments, and count what was lost or repeated; takes half an hour
	@OTN_KILL_PEOPLE=50 $(BIN)/pytest -q -s --timeout 0 --disable-warnings tests/test_kill.py
	@OTN_KILL_TOKENS=20000 OTN_KILL_WORKERS=100 $(BIN)/pytest -q -s --timeout 0 --disable-warnings tests/test_kill_broadcast.py

lock: $(UV) ## Pin the versions of pyproject.toml with hashes (UPGRADE=1: the newest that fit)
	@$(COMPILE) --python-version 3.8 --group boot -o requirements-boot.lock
	@$(COMPILE) --python-version 3.10 pyproject.toml --extra rasa -o requirements.lock
	@$(COMPILE) --python-version 3.10 pyproject.toml --extra rasa --extra dev -c requirements.lock -o requirements-dev.lock
	@echo "lock: wrote requirements.lock, requirements-dev.lock and requirements-boot.lock"

wheel: $(ENVIRONMENT) ## Build the wheel for somebody else's bot into dist/ (docs/add-to-your-bot.md)
	@rm -rf build
	@$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python
	@echo "wheel: $$(ls dist/*.whl)"

clean: ## Remove what can be made again; .env and the databases stay
	@rm -rf .venv build dist .otn/boot .otn/demo .otn/train .otn/*.log models/bot.* .rasa results \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: removed the environment, models and caches; kept .env and the databases in .otn"

$(ENVIRONMENT): $(UV) pyproject.toml requirements-dev.lock
	@$(BOOTSTRAP)
	@touch $@

$(UV): requirements-boot.lock otn/dev/bootstrap.py
	@$(BOOTSTRAP) uv
	@touch $@
