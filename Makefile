# Every target does its own set-up; `make help` lists them. Works with GNU make 3.81 and later.
PYTHON ?= python3.11
BIN := .venv/bin
UV_VERSION := 0.13.9

FAULTS ?= all
RUNS_IN ?= .
SOAK_ARGS ?=

.PHONY: help setup demo check test test-slow soak docs notebooks benchmarks clusterfit divide_contrast FORCE
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## /{printf "%-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: .venv/.done ## install the pinned versions and this package into .venv; PYTHON=python3.12 picks the interpreter

# An interpreter that was requested and is not the one of .venv gets a new environment
INTERPRETER := import sys; print(sys.version.split()[0], sys.base_prefix)
ifneq ($(filter command environment,$(origin PYTHON)),)
ifneq ($(wildcard .venv/.python),)
ifneq ($(shell $(PYTHON) -c '$(INTERPRETER)' 2>/dev/null),$(shell cat .venv/.python))
CLEAR := --clear
.venv/.done: FORCE
endif
endif
endif

.venv/.done: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: found Python " + sys.version.split()[0] \
		+ " ($(PYTHON)); expected 3.11 or later: give, for example, make setup PYTHON=python3.12")'
	@echo "setup: installing the pinned packages into .venv. torch's wheels for Linux hold CUDA libraries: the first time,"
	@echo "setup: about 3 GB are downloaded and 6 GB of disk are used. docs/installation.md explains the use of a CPU-only torch."
	$(PYTHON) -m venv $(CLEAR) .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@$(PYTHON) -c '$(INTERPRETER)' > .venv/.python
	@touch $@
	@echo "setup: done. Next: make demo"

demo: setup ## DeepCluster on real digits: a table and a page to look at, in under 3 minutes
	$(BIN)/ssl-lightning demo

check: setup ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: check ## check, then the fast tests
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup ## kills, two processes, notebooks, documentation commands, three demo seeds
	CHECK_SHAPES=0 $(BIN)/pytest -n 2 --dist loadfile -m slow

docs: setup ## build the documentation into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

notebooks: setup ## carry out the notebooks and write their pages in docs/notebooks; RUNS_IN=. holds the folder runs
	$(BIN)/python docs/render_notebooks.py $(RUNS_IN)

soak: setup ## inject faults for an hour: kills, signals, disks, damage, hostile files; FAULTS=all SOAK_ARGS="--minutes 120"
	CHECK_SHAPES=0 $(BIN)/pytest -n 2 --dist loadfile -m soak tests/test_notebooks.py
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --faults $(FAULTS) $(SOAK_ARGS)

# gpu.py needs a method; manifest.py, duplicates.py and collection.py need images or sizes: benchmarks/README.md
BENCHMARKS := $(filter-out $(patsubst %,benchmarks/%.py,gpu manifest duplicates collection),$(wildcard benchmarks/[a-z]*.py))

benchmarks: setup ## every benchmark without arguments; results in benchmarks/README.md
	for file in $(BENCHMARKS); do $(BIN)/python $$file || exit 1; done

# The graph of the staged methods. A stage is one command; the file that it writes last is an edge. Finished stages are
# skipped, an interrupted stage resumes. make notices changed options and configurations but not changed images: after a
# change of images, touch configs/data/<DATA>.yaml.
DATA ?= digits
K ?= $(if $(filter divide_contrast,$(MAKECMDGOALS)),5,100)
SEED ?= 0
RUNS ?= runs
SCALE ?=
PRETRAINED ?=
PRETRAIN_ARGS ?=
CLUSTER_ARGS ?=
FIT_ARGS ?=
BASE ?=
BASE_ARGS ?=
EXPERT_ARGS ?=
DISTILL_ARGS ?=

# Nothing runs with options that no stage can use
quoted = '$(subst ','\'',$(1))'
ifneq ($(filter clusterfit divide_contrast,$(MAKECMDGOALS)),)
PROBLEM := $(shell $(firstword $(wildcard $(BIN)/python) $(PYTHON)) ssl_lightning/commands/stage_options.py \
	$(call quoted,data=$(DATA)) $(call quoted,scale=$(SCALE)) $(call quoted,k=$(K)) $(call quoted,seed=$(SEED)))
ifneq ($(PROBLEM),)
$(error $(PROBLEM))
endif
endif

OVERLAY := configs/data/$(DATA).yaml
SCALED := $(if $(SCALE),configs/scale/$(SCALE).yaml)
FIT = $(BIN)/ssl-lightning fit --resume.policy restart --seed_everything $(SEED) --run.dir $(RUNS)
CONFIGURED = $(foreach file,$(OVERLAY) $(SCALED),--config $(file))

# clusterfit: DATA is a file in configs/data/, SCALE a file in configs/scale/. PRETRAINED=<checkpoint> replaces stage 1.
# *_ARGS are options of the command of one stage.
CF := clusterfit-$(DATA)-k$(K)$(if $(filter-out 0,$(SEED)),-s$(SEED))
CF_CHECKPOINT := $(or $(PRETRAINED),$(RUNS)/$(CF)-pretrain/checkpoints/last.ckpt)

clusterfit: setup $(RUNS)/$(CF)-fit/done.json ## pretrain, cluster, fit: DATA=digits K=100 [SCALE=cpu] [SEED=0] [PRETRAINED=file]
	@echo "clusterfit: all 3 stages of $(CF) are there; report: $(RUNS)/$(CF)-fit/report/index.html"

$(RUNS)/$(CF)-pretrain/done.json: configs/clusterfit/1_pretrain.yaml $(OVERLAY) $(SCALED) $(RUNS)/.$(CF)-pretrain.args
	@echo "clusterfit 1/3: pretraining into $(RUNS)/$(CF)-pretrain; next: its clusters"
	$(FIT) --config $< $(CONFIGURED) --run.name $(CF)-pretrain $(PRETRAIN_ARGS)

$(RUNS)/$(CF)-cluster.safetensors: configs/clusterfit/2_cluster.yaml $(OVERLAY) $(RUNS)/.$(CF)-cluster.args \
		$(or $(PRETRAINED),$(RUNS)/$(CF)-pretrain/done.json)
	@echo "clusterfit 2/3: $(K) clusters into $@; next: a network from scratch on them"
	$(BIN)/ssl-lightning predict --config $< --config $(OVERLAY) --seed_everything $(SEED) --ckpt_path $(CF_CHECKPOINT) \
		--trainer.callbacks.path $(basename $@) --trainer.callbacks.num_clusters $(K) \
		--run.dir $(RUNS) --run.name $(CF)-cluster $(CLUSTER_ARGS)

$(RUNS)/$(CF)-fit/done.json: configs/clusterfit/3_fit.yaml $(OVERLAY) $(SCALED) $(RUNS)/.$(CF)-fit.args \
		$(RUNS)/$(CF)-cluster.safetensors
	@echo "clusterfit 3/3: fitting into $(RUNS)/$(CF)-fit; then all is there"
	$(FIT) --config $< $(CONFIGURED) --model.clusters $(RUNS)/$(CF)-cluster.safetensors --model.num_clusters $(K) \
		--run.name $(CF)-fit $(FIT_ARGS)

# divide_contrast: as above. BASE=<checkpoint of SimCLR, BYOL or MoCLR> replaces stage 1. `make -j` trains experts side by
# side. The run folder of an expert that was trained on another machine can be copied here.
DC := divide_contrast-$(DATA)-k$(K)$(if $(filter-out 0,$(SEED)),-s$(SEED))
DC_BASE := $(or $(BASE),$(RUNS)/$(DC)-base/checkpoints/last.ckpt)
DC_EDGE := $(RUNS)/$(DC)-cluster.safetensors
DC_EXPERTS := $(patsubst %,$(RUNS)/$(DC)-expert-%/done.json,$(shell seq 0 $$(($(K) - 1))))
comma := ,
listed = [$(subst $() ,$(comma),$(strip $(1)))]

divide_contrast: setup $(RUNS)/$(DC)-distill/done.json ## base, clusters, experts, distillation: DATA=digits K=5 [SCALE=cpu] [SEED=0] [BASE=file]
	@echo "divide_contrast: all 4 stages of $(DC) are there; report: $(RUNS)/$(DC)-distill/report/index.html"
	@$(BIN)/ssl-lightning budget $(patsubst %/checkpoints/,%,$(dir $(DC_BASE))) $(DC_EXPERTS:/done.json=) $(RUNS)/$(DC)-distill || true

$(RUNS)/$(DC)-base/done.json: configs/divide_contrast/1_base.yaml $(OVERLAY) $(SCALED) $(RUNS)/.$(DC)-base.args
	@echo "divide_contrast 1/4: a base into $(RUNS)/$(DC)-base; next: clusters of its features"
	$(FIT) --config $< $(CONFIGURED) --run.name $(DC)-base $(BASE_ARGS)

$(DC_EDGE): configs/divide_contrast/2_cluster.yaml $(OVERLAY) $(RUNS)/.$(DC)-cluster.args \
		$(or $(BASE),$(RUNS)/$(DC)-base/done.json)
	@echo "divide_contrast 2/4: $(K) clusters into $@; next: an expert on each"
	$(BIN)/ssl-lightning predict --config $< --config $(OVERLAY) --seed_everything $(SEED) --ckpt_path $(DC_BASE) \
		--trainer.callbacks.path $(basename $@) --trainer.callbacks.num_clusters $(K) \
		--run.dir $(RUNS) --run.name $(DC)-cluster $(CLUSTER_ARGS)

$(DC_EXPERTS): $(RUNS)/$(DC)-expert-%/done.json: configs/divide_contrast/3_expert.yaml $(OVERLAY) $(SCALED) \
		$(RUNS)/.$(DC)-expert.args $(DC_EDGE)
	@echo "divide_contrast 3/4: expert $* of 0..$(K)-1 into $(RUNS)/$(DC)-expert-$*; after all of them: the student"
	$(FIT) --config $< $(CONFIGURED) --data.subset.path $(DC_EDGE) --data.subset.value $* \
		--run.name $(DC)-expert-$* $(EXPERT_ARGS)

$(RUNS)/$(DC)-distill/done.json: configs/divide_contrast/4_distill.yaml $(OVERLAY) $(SCALED) \
		$(RUNS)/.$(DC)-distill.args $(DC_EXPERTS)
	@echo "divide_contrast 4/4: the student into $(RUNS)/$(DC)-distill; then all is there"
	$(FIT) --config $< $(CONFIGURED) --model.base $(DC_BASE) --model.clusters $(DC_EDGE) \
		--model.experts '$(call listed,$(DC_EXPERTS:done.json=checkpoints/last.ckpt))' \
		--run.name $(DC)-distill $(DISTILL_ARGS)

# Options given on the command line are inputs too: these files change when the options do
$(RUNS)/.$(CF)-pretrain.args: export OPTIONS = $(SCALE) $(PRETRAIN_ARGS)
$(RUNS)/.$(CF)-cluster.args: export OPTIONS = $(PRETRAINED) $(CLUSTER_ARGS)
$(RUNS)/.$(CF)-fit.args: export OPTIONS = $(SCALE) $(FIT_ARGS)
$(RUNS)/.$(DC)-base.args: export OPTIONS = $(SCALE) $(BASE_ARGS)
$(RUNS)/.$(DC)-cluster.args: export OPTIONS = $(BASE) $(CLUSTER_ARGS)
$(RUNS)/.$(DC)-expert.args: export OPTIONS = $(SCALE) $(EXPERT_ARGS)
$(RUNS)/.$(DC)-distill.args: export OPTIONS = $(SCALE) $(DISTILL_ARGS)

$(RUNS)/.%.args: FORCE
	@mkdir -p $(RUNS)
	@printf '%s\n' "$$OPTIONS" | cmp -s - $@ || printf '%s\n' "$$OPTIONS" > $@
