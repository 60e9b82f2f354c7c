# `make` alone prints the targets. Needs Python 3.11+, make and a network, nothing else.

VENV ?= .venv
ARGS ?=
ROUNDS ?= 20
DEPLOYMENT ?= embedded
RUNS ?= 2000
export PEER ?=
export BENCHES ?=
URL ?= http://127.0.0.1:8080
BIN = $(VENV)/bin

# Most of the tests' time is waiting. What needs a real server is one group, run by one process.
PARALLEL = -n 4 --dist=loadgroup

# The first Python that is new enough; PYTHON=/path/to/python3 names one.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	{ echo "$$python"; break; }; done)

# $(call set_up,PROFILE): the environment holds requirements/PROFILE.txt and this project.
define set_up
@python='$(PYTHON)'; if [ -z "$$python" ]; then \
	echo "Python 3.11 or newer is needed; name it: make $@ PYTHON=/path/to/python3" >&2; exit 2; \
fi; "$$python" scripts/set_up.py "$(VENV)" $(1)
endef

.PHONY: help
help: ## Print the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
	@echo 'Arguments go through ARGS: make run ARGS="--port 8081 --data-dir /var/lib/polyglot"'

.PHONY: run
run: ## Run everything on this machine until Ctrl-C.
	$(call set_up,base)
	@exec "$(BIN)/polyglot" up $(ARGS)

.PHONY: demo
demo: ## Run everything, send real orders to it, and open a page to watch them.
	$(call set_up,base)
	@exec "$(BIN)/polyglot" demo $(ARGS)

.PHONY: load
load: datasets ## Send real orders to a running `make run` and check every day to the cent.
	@exec "$(BIN)/polyglot" load completejourney --url "$(URL)" $(ARGS)

.PHONY: test
test: ## Run the test suite.
	$(call set_up,dev)
	@exec "$(BIN)/python" -m pytest $(PARALLEL) $(ARGS)

.PHONY: check
check: lint ## Run what a commit must pass, in under a minute.
	@exec "$(BIN)/python" -m pytest -q $(PARALLEL) tests/unit $(ARGS)

.PHONY: coverage
coverage: ## Run unit and contract tests, and print what they do not reach.
	$(call set_up,dev)
	@exec "$(BIN)/python" -m pytest -q $(PARALLEL) --cov --cov-report=term tests/unit tests/contract $(ARGS)

.PHONY: restarts
restarts: ## Kill and stop real servers under load, each ROUNDS times (20), and count.
	$(call set_up,dev)
	@scripts/servers up redis rabbitmq postgres elasticsearch
	@eval "$$(scripts/servers test-env)"; export RESTARTS=$(ROUNDS) REQUIRE_SERVERS=1; \
		exec "$(BIN)/python" -m pytest -s tests/system/test_restarts.py $(ARGS)

.PHONY: fault
fault: ## Kill, wipe, cut and fill things under load, ROUNDS times (20), and count; SEED repeats; DEPLOYMENT=ha.
	$(call set_up,dev)
	@if [ "$(DEPLOYMENT)" != embedded ]; then \
		scripts/servers up redis rabbitmq postgres elasticsearch; eval "$$(scripts/servers test-env)"; \
	fi; exec "$(BIN)/python" -m tests.fault --deployment "$(DEPLOYMENT)" --rounds "$(ROUNDS)" \
		$(if $(SEED),--seed "$(SEED)") $(ARGS)

.PHONY: simulate
simulate: ## Simulate the whole pipeline under faults, RUNS times (2000) from SEED on; cuts failures down.
	$(call set_up,dev)
	@exec "$(BIN)/python" -m tests.simulation --runs "$(RUNS)" --seed "$(or $(SEED),0)" --table $(ARGS)

.PHONY: hostile
hostile: ## Have hostile clients of all kinds for SECONDS each (10); DEPLOYMENT=servers, ARGS for pytest.
	$(call set_up,dev)
	@if [ "$(DEPLOYMENT)" != embedded ]; then \
		scripts/servers up redis rabbitmq postgres elasticsearch; eval "$$(scripts/servers test-env)"; \
	fi; HOSTILE_SECONDS=$(or $(SECONDS),10) exec "$(BIN)/python" -m pytest -s tests/hostile \
		-k "not harm_nobody or $(DEPLOYMENT)" $(ARGS)

.PHONY: outage
outage: ## Take PostgreSQL away under load; ARGS="--seconds 3600 --rate 500". Watches memory, counts.
	$(call set_up,dev)
	@exec "$(BIN)/python" -m tests.fault.outage $(ARGS)

.PHONY: bench
bench: ## Measure on real servers beside the Go peer, PEER=its-source; BENCHES=accept,read does less.
	$(call set_up,bench)
	@exec "$(BIN)/python" -m bench $(ARGS)

.PHONY: compose-test
compose-test: ## Run the compose file for real, with stand-ins for images (root); ARGS=ha: both files.
	@exec scripts/compose-test $(ARGS)

.PHONY: chart
chart: ## Check the Helm chart; builds helm the first time, for which Go is needed.
	$(call set_up,dev)
	@scripts/get-helm
	@REQUIRE_SERVERS=1 exec "$(BIN)/python" -m pytest -q tests/unit/test_chart.py $(ARGS)

.PHONY: lint
lint: ## Check format, lint, types and imports.
	$(call set_up,dev)
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/ruff" check .
	@"$(BIN)/mypy"
	@"$(BIN)/lint-imports"
	@git ls-files -z | xargs -0 "$(BIN)/codespell"

.PHONY: datasets
datasets: ## Install the real orders that `polyglot load` sends.
	$(call set_up,datasets)

.PHONY: docs
docs: ## Write what is generated of the documents.
	$(call set_up,dev)
	@"$(BIN)/python" scripts/document_settings.py
	@"$(BIN)/python" scripts/document_api.py
	@"$(BIN)/python" scripts/grafana.py

.PHONY: lock
lock: ## Pin every dependency with hashes; ARGS=--upgrade takes newer ones.
	$(call set_up,lock)
	@"$(BIN)/python" scripts/lock.py $(ARGS)
