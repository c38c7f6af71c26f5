# Everything a person does here, by name. `make` alone shows the list.

PYTHON ?= python3
RECIPE ?= tiny
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ICHIGO := $(BIN)/ichigo
# Folder of recordings (metadata.jsonl beside them); without it a recipe makes its own speech.
DATA ?=
# Overrides, separated by spaces: SET="seed=1 stages.instruct.steps=50"
SET ?=
# How many processes `make chaos` kills.
KILLS ?= 30
# More arguments for pip when it installs torch, for instance another index with the CPU build.
TORCH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install run test chaos gpu compile system up down status clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile
	@echo "  variables: RECIPE=$(RECIPE) DATA=folder SET=\"a.b=c\" TORCH_ARGS=\"--index-url …\""

install: $(INSTALLED)  ## create .venv with everything pinned in constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip==26.3
	$(BIN)/pip install --quiet --constraint constraints.txt $(TORCH_ARGS) torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

run: $(INSTALLED)  ## train RECIPE end to end on this machine
	$(ICHIGO) run $(RECIPE) $(if $(DATA),--data '$(DATA)') $(foreach s,$(SET),--set '$(s)')

test: $(INSTALLED)  ## style, types and every test this machine can run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m 'not containers'

chaos: $(INSTALLED)  ## kill processes of whole runs at random; KILLS=30, report in chaos.txt
	$(BIN)/python -m tests.chaos --kills $(KILLS) --out chaos.txt

gpu: $(INSTALLED)  ## smoke's stages on a GPU: ZeRO, kill and resume, packing, speed; report in gpu.txt
	$(BIN)/python -m tests.measure_gpu --out gpu.txt

compile: $(INSTALLED)  ## write the pipeline's IR, pipelines/ichigo.yaml
	$(BIN)/python -m pipelines.ichigo

system:  ## Debian packages that some tests use (each optional; needs root)
	apt-get update
	apt-get install --yes --no-install-recommends $$(grep -v '^#' packages.txt)

up: $(INSTALLED)  ## start the embedded MLflow and S3 servers
	$(ICHIGO) up

status: $(INSTALLED)  ## addresses and health of the embedded servers
	$(ICHIGO) status

down: $(INSTALLED)  ## stop them; their data stays
	$(ICHIGO) down

clean:  ## remove what was built (.venv and caches); runs and data in .ichigo stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
