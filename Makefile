# What a developer and a newcomer run. Each target sets up what it needs: a virtual environment in .venv, the packages
# named in pyproject.toml (again when that file changes), and for the tests Mosquitto where it can be had.
#
#   make demo ARGS="--mqtt-port 0"     options go through
#   make test ARGS="-k health"
#   make fuzz ARGS="--frames 20000"    a short one
#   make PYTHON=python3.13 test        another interpreter, for a new .venv

VENV := .venv
BIN := $(VENV)/bin
PLACE := $(VENV)/.place
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The tests mostly wait: two cores carry eight workers. `make WORKERS=2 test` where they do not, WORKERS=0 for none.
WORKERS ?= 8
ARGS ?=

# Debian keeps mosquitto in /usr/sbin, which is not on everybody's path.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench fuzz faults soak protocol clean mosquitto FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(RUNTIME) ## broker, simulated cycler and bridge on this machine; Ctrl-C ends it
	@exec $(BIN)/cti-mqtt demo $(ARGS)

# The program is started some hundred times: whatever the environment says, it is compiled once.
test: $(DEV) mosquitto ## all tests
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(DEV) ## lint, format, types, import rule
	@status=0; \
	for each in "ruff check ." "ruff format --check ." mypy lint-imports; do \
		echo "$$each"; \
		$(BIN)/$$each || status=1; \
	done; \
	exit $$status

bench: $(DEV) mosquitto ## how fast, beside floor, ceiling and incumbent; ARGS="--only decode,scale --json" for some
	@$(BIN)/python benchmarks/run.py $(ARGS)

fuzz: $(DEV) ## a million random and mutated frames through the receiver, both roles
	@$(BIN)/python -m tests.fuzz.run $(ARGS)

faults: $(DEV) mosquitto ## bridge and broker killed, bad links, hostile messages; ARGS="--only bridge,outage" for some
	@$(BIN)/python -m tests.faults.run $(ARGS)

soak: $(DEV) mosquitto ## an hour with 16 cyclers of 64 channels: memory, file descriptors, missed polls
	@$(BIN)/python -m tests.soak.run $(ARGS)

protocol: $(DEV) ## makes docs/protocol.md anew, after a change of messages or codes
	@$(BIN)/python docs/generate_protocol.py

clean: ## removes .venv, caches and build results
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment ---

# A .venv that was moved, or whose interpreter has gone, is made anew.
ifneq ($(shell [ "$$(cat $(PLACE) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c "" 2>/dev/null && echo usable),usable)
$(RUNTIME) $(DEV): FORCE
endif

define MAKE_VENV
if [ "$$(cat $(PLACE) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c "" 2>/dev/null; then exit 0; fi; \
enough='import sys; sys.exit(sys.version_info < (3, 11))'; \
found=; \
for each in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	if "$$each" -c "$$enough" 2>/dev/null; then found=$$each; break; fi; \
done; \
if [ -z "$$found" ]; then \
	echo "cti-mqtt needs Python 3.11 or newer; found: $$($(or $(PYTHON),python3) --version 2>&1 || true)" >&2; \
	echo "Install it, or name it: make PYTHON=/path/to/python3 ..." >&2; \
	exit 1; \
fi; \
if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	echo "$$found cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
	echo "On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; \
	exit 1; \
fi; \
echo "Making $(VENV) with $$("$$found" --version)"; \
"$$found" -m venv --clear $(VENV) && printf '%s' "$(CURDIR)" > $(PLACE)
endef

$(RUNTIME): pyproject.toml
	@$(MAKE_VENV)
	@if [ ! -e $(DEV) ] || [ pyproject.toml -nt $(DEV) ]; then \
		echo "Installing the packages (the first time this takes a minute)"; $(PIP) install --quiet --editable .; fi
	@touch $@

$(DEV): pyproject.toml
	@$(MAKE_VENV)
	@echo "Installing the packages and the tools for tests (the first time this takes a minute)"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(RUNTIME)

# --- Mosquitto, for the tests that need a broker with MQTT 5, TLS or access rules ---

mosquitto:
	@have() { command -v mosquitto >/dev/null && command -v mosquitto_sub >/dev/null; }; \
	have && exit 0; \
	as_root=; [ "$$(id -u)" = 0 ] || as_root="sudo -n"; \
	if command -v apt-get >/dev/null && $$as_root true 2>/dev/null; then \
		echo "Installing mosquitto and mosquitto-clients with apt-get"; \
		$$as_root apt-get -qq update >/dev/null 2>&1; \
		$$as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install --no-install-recommends mosquitto mosquitto-clients >/dev/null 2>&1; \
	fi; \
	have || echo "Mosquitto is not installed: the tests that need it will be skipped, and are listed as skipped." >&2
