# Every target does its own set-up; `make help` lists them.
PYTHON ?= python3.11
BIN := .venv/bin
UV_VERSION := 0.13.9

FAULTS ?= all
SOAK_ARGS ?=

.PHONY: help setup demo check test test-slow soak benchmarks clusterfit divide_contrast
.DEFAULT_GOAL := help

help: ## every target in a line
	@grep -hE '^[a-z_-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

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
	CHECK_SHAPES=0 $(BIN)/pytest -n 2 --dist loadfile -m slow

soak: setup ## inject faults for an hour: kills, signals, disks, damage, hostile files; FAULTS=all SOAK_ARGS="--minutes 120"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --faults $(FAULTS) $(SOAK_ARGS)

benchmarks: setup ## every benchmark but gpu.py, which needs a method; results in benchmarks/README.md
	for file in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$file || exit 1; done

# Staged methods: a stage is a command, an edge is a file that is written last, and this is the graph. What is there and
# not older than what it is made of is left alone; a stage that was stopped goes on where it was. make sees changed options
# and configs, not changed images: after those, touch configs/data/<DATA>.yaml.
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

# divide_contrast: as above; BASE=<checkpoint of SimCLR, BYOL or MoCLR> takes the place of stage 1; `make -j` trains the
# experts side by side, and one that was trained elsewhere is a folder to copy here
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
	@echo "divide_contrast 1/4: a base into $(RUNS)/$(DC)-base; next: clusters of what it sees"
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

# What was given on the command line is an input too: these files change when it does
note = $(if $(subst xargs $(strip $(2)),,x$(file <$(1))),$(file >$(1),args $(strip $(2))))
ifneq ($(filter clusterfit,$(MAKECMDGOALS)),)
$(shell mkdir -p $(RUNS))
$(call note,$(RUNS)/.$(CF)-pretrain.args,$(SCALE) $(PRETRAIN_ARGS))
$(call note,$(RUNS)/.$(CF)-cluster.args,$(PRETRAINED) $(CLUSTER_ARGS))
$(call note,$(RUNS)/.$(CF)-fit.args,$(SCALE) $(FIT_ARGS))
endif
ifneq ($(filter divide_contrast,$(MAKECMDGOALS)),)
$(shell mkdir -p $(RUNS))
$(call note,$(RUNS)/.$(DC)-base.args,$(SCALE) $(BASE_ARGS))
$(call note,$(RUNS)/.$(DC)-cluster.args,$(BASE) $(CLUSTER_ARGS))
$(call note,$(RUNS)/.$(DC)-expert.args,$(SCALE) $(EXPERT_ARGS))
$(call note,$(RUNS)/.$(DC)-distill.args,$(SCALE) $(DISTILL_ARGS))
endif
