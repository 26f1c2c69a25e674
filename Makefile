# Every target does its own set-up; `make help` lists them.
PYTHON ?= python3.11
BIN := .venv/bin
UV_VERSION := 0.13.9

.PHONY: help setup demo check test test-slow benchmarks clusterfit
.DEFAULT_GOAL := help

help: ## every target in a line
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.done ## a virtual environment in .venv with the pinned versions and this package

.venv/.done: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	touch $@

demo: setup ## DeepCluster on real digits: a table and a page to look at, in under 3 minutes
	$(BIN)/ssl-lightning demo

check: setup ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: check ## check, then the fast tests
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup ## kills, two processes, notebooks, documentation commands, three demo seeds
	$(BIN)/pytest -n 2 --dist loadfile -m slow

benchmarks: setup ## every benchmark but gpu.py, which needs a method; results in benchmarks/README.md
	for file in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$file || exit 1; done

# Staged methods: a stage is a command, an edge is a file that is written last, and this is the graph. What is there and
# not older than what it is made of is left alone; a stage that was stopped goes on where it was.
DATA ?= digits
K ?= 100
SEED ?= 0
RUNS ?= runs
SCALE ?=
PRETRAINED ?=
PRETRAIN_ARGS ?=
CLUSTER_ARGS ?=
FIT_ARGS ?=

OVERLAY := configs/data/$(DATA).yaml
SCALED := $(if $(SCALE),configs/scale/$(SCALE).yaml)
FIT = $(BIN)/ssl-lightning fit --resume.policy restart --seed_everything $(SEED) --run.dir $(RUNS)
CONFIGURED = $(foreach file,$(OVERLAY) $(SCALED),--config $(file))

# clusterfit: DATA is a file in configs/data/, SCALE one in configs/scale/; PRETRAINED=<checkpoint> takes the place of
# stage 1; *_ARGS are options of one stage's command
CF := clusterfit-$(DATA)-k$(K)$(if $(filter-out 0,$(SEED)),-s$(SEED))
CF_SEEN := $(or $(PRETRAINED),$(RUNS)/$(CF)-pretrain/checkpoints/last.ckpt)

clusterfit: setup $(RUNS)/$(CF)-fit/done.json ## pretrain, cluster, fit: DATA=digits K=100 [SCALE=cpu] [SEED=0] [PRETRAINED=file]
	@echo "clusterfit: all 3 stages of $(CF) are there; report: $(RUNS)/$(CF)-fit/report/index.html"

$(RUNS)/$(CF)-pretrain/done.json: configs/clusterfit/1_pretrain.yaml $(OVERLAY) $(SCALED) $(RUNS)/.$(CF)-pretrain.args
	@echo "clusterfit 1/3: pretraining into $(RUNS)/$(CF)-pretrain; next: its clusters"
	$(FIT) --config $< $(CONFIGURED) --run.name $(CF)-pretrain $(PRETRAIN_ARGS)

$(RUNS)/$(CF)-cluster.safetensors: configs/clusterfit/2_cluster.yaml $(OVERLAY) $(RUNS)/.$(CF)-cluster.args \
		$(or $(PRETRAINED),$(RUNS)/$(CF)-pretrain/done.json)
	@echo "clusterfit 2/3: $(K) clusters into $@; next: a network from scratch on them"
	$(BIN)/ssl-lightning predict --config $< --config $(OVERLAY) --seed_everything $(SEED) --ckpt_path $(CF_SEEN) \
		--trainer.callbacks.path $(basename $@) --trainer.callbacks.num_clusters $(K) \
		--run.dir $(RUNS) --run.name $(CF)-cluster $(CLUSTER_ARGS)

$(RUNS)/$(CF)-fit/done.json: configs/clusterfit/3_fit.yaml $(OVERLAY) $(SCALED) $(RUNS)/.$(CF)-fit.args \
		$(RUNS)/$(CF)-cluster.safetensors
	@echo "clusterfit 3/3: fitting into $(RUNS)/$(CF)-fit; then all is there"
	$(FIT) --config $< $(CONFIGURED) --model.clusters $(RUNS)/$(CF)-cluster.safetensors --model.num_clusters $(K) \
		--run.name $(CF)-fit $(FIT_ARGS)

# What was given on the command line is an input too: these files change when it does
note = $(if $(subst xargs $(strip $(2)),,x$(file <$(1))),$(file >$(1),args $(strip $(2))))
ifneq ($(filter clusterfit,$(MAKECMDGOALS)),)
$(shell mkdir -p $(RUNS))
$(call note,$(RUNS)/.$(CF)-pretrain.args,$(SCALE) $(PRETRAIN_ARGS))
$(call note,$(RUNS)/.$(CF)-cluster.args,$(PRETRAINED) $(CLUSTER_ARGS))
$(call note,$(RUNS)/.$(CF)-fit.args,$(SCALE) $(FIT_ARGS))
endif
