# `make` alone prints the targets.
BUNDLE ?= neuroseg3d
COHORT ?= brats2021
DATA ?=
ARGS ?=
DEMO ?= demo
RESULTS ?= bundles/$(BUNDLE)/eval
PYTHON ?= python3.11
PY = .venv/bin/python
RUN = $(PY) -m monai.bundle run
LAYERS = --args_file bundles/$(BUNDLE)/args.yaml --cohort $(COHORT) --dataset_dir $(DATA) $(ARGS)
DEMO_LAYERS = --args_file bundles/neuroseg3d/args.yaml --cohort brats2021 --dataset_dir $(DEMO)/$(1) \
	--patch_size "[64, 64, 64]" --ckpt_dir $(DEMO)/models --output_dir $(DEMO)/results
CODE = custom_components tools tests

.DEFAULT_GOAL := help
.PHONY: help setup demo train evaluate infer report watch table test smoke lint show clean

help: ## print the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: .venv/ready ## install the pins of environment.yml into .venv

.venv/ready: environment.yml
	$(PYTHON) -m venv .venv
	sed -n 's/^      - \([^ ]*\).*/\1/p' environment.yml > .venv/requirements.txt
	.venv/bin/pip install --quiet --requirement .venv/requirements.txt
	touch $@

demo: setup ## make synthetic patients, train NeuroSeg3D, score it, segment new patients (DEMO=folder)
	$(PY) -m tools.synthetic --output $(DEMO)/patients --cases 16 --size 96
	$(PY) -m tools.synthetic --output $(DEMO)/new --cases 2 --size 96 --seed 1
	$(RUN) training $(call DEMO_LAYERS,patients) --epochs 10 --iterations_per_epoch 100 --resume False
	$(RUN) evaluating $(call DEMO_LAYERS,patients) --report True
	$(RUN) inferring $(call DEMO_LAYERS,new)
	@echo
	@echo "best checkpoint   $(DEMO)/models/model.pt"
	@echo "scores            $(DEMO)/results/scores"
	@echo "label maps        $(DEMO)/results/segmentations"
	@echo "curves            $(DEMO)/results/training.csv, $(DEMO)/results/tensorboard"
	@echo "report            $(DEMO)/results/report/report.html"
	@echo "real data next    make train BUNDLE=neuroseg3d COHORT=brats2021 DATA=the/folder/as/downloaded"

train: setup ## train BUNDLE on COHORT in DATA (ARGS="--epochs 50 ...")
	$(RUN) training $(LAYERS)

evaluate: setup ## score BUNDLE on the patients of DATA that training never saw
	$(RUN) evaluating $(LAYERS)

infer: setup ## segment the scans in DATA
	$(RUN) inferring $(LAYERS)

report: setup ## a page of curves, scores and pictures of what lies in BUNDLE's results
	$(RUN) reporting $(LAYERS)

watch: setup ## follow the training of BUNDLE in a browser: curves, and a picture an epoch (RESULTS=folder)
	.venv/bin/tensorboard --logdir $(RESULTS)/tensorboard --reload_interval 10

table: setup ## parameters and FLOPs of the four networks
	@$(PY) -m tools.networks

test: setup ## run the whole test suite
	$(PY) -m pytest

smoke: setup ## run the tests of one variant: BUNDLE
	$(PY) -m pytest -k $(BUNDLE)

lint: setup ## ruff and mypy
	.venv/bin/ruff check $(CODE)
	.venv/bin/ruff format --check $(CODE)
	.venv/bin/mypy $(CODE)

show: setup ## print the merged config of BUNDLE
	@$(PY) -m tools.show bundles/$(BUNDLE)/args.yaml

clean: ## remove .venv and the demo
	rm -rf .venv $(DEMO)
