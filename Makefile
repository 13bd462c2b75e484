# `make` alone prints the targets.
BUNDLE ?= neuroseg3d
COHORT ?= brats2021
DATA ?=
ARGS ?=
DEVICES ?= 1
WEIGHTS ?=
URL ?=
SCHEMA ?=
FORMAT ?= torchscript
DEMO ?= demo
PYTHON ?= python3.11
PY = .venv/bin/python
RUN = $(PY) -m monai.bundle run
LAYERS = --args_file bundles/$(BUNDLE)/args.yaml --cohort $(COHORT) --dataset_dir $(DATA) $(ARGS)
DEMO_LAYERS = --args_file bundles/neuroseg3d/args.yaml --cohort brats2021 --dataset_dir $(DEMO)/$(1) \
	--patch_size "[64, 64, 64]" --ckpt_dir $(DEMO)/models --output_dir $(DEMO)/results
# several devices: torchrun, and one more layer over those that args.yaml lists
SEVERAL = $(filter-out 1,$(DEVICES))
LAUNCH = $(if $(SEVERAL),$(PY) -m torch.distributed.run --standalone --nproc_per_node=$(DEVICES) -m monai.bundle run,$(RUN))
ALSO = $(if $(SEVERAL),--config_file "[$$(sed -n "s/^  - \(.*\)/'\1',/p" bundles/$(BUNDLE)/args.yaml | tr -d '\n')'bundles/common/multi_gpu_$(1).yaml']")
# BUNDLE as the user gave it, else all
GIVEN = $(if $(filter file,$(origin BUNDLE)),all,$(BUNDLE))
CODE = custom_components tools tests

.DEFAULT_GOAL := help
.PHONY: help setup demo train evaluate infer table test smoke lint show release verify export clean

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
	$(RUN) evaluating $(call DEMO_LAYERS,patients)
	$(RUN) inferring $(call DEMO_LAYERS,new)
	@echo
	@echo "best checkpoint   $(DEMO)/models/model.pt"
	@echo "scores            $(DEMO)/results/scores"
	@echo "label maps        $(DEMO)/results/segmentations"
	@echo "curves            $(DEMO)/results/training.csv, $(DEMO)/results/tensorboard"
	@echo "real data next    make train BUNDLE=neuroseg3d COHORT=brats2021 DATA=the/folder/as/downloaded"

train: setup ## train BUNDLE on COHORT in DATA (ARGS="--epochs 50 ...", DEVICES=2)
	$(LAUNCH) training $(LAYERS) $(call ALSO,train)

evaluate: setup ## score BUNDLE on the patients of DATA that training never saw
	$(LAUNCH) evaluating $(LAYERS) $(call ALSO,evaluate)

infer: setup ## segment the scans in DATA
	$(RUN) inferring $(LAYERS)

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

release: setup ## pack all bundles, or BUNDLE, in the model zoo format into dist/ (WEIGHTS=model.pt, URL=if it stays out)
	@$(PY) -m tools.release $(GIVEN) --weights "$(WEIGHTS)" --url "$(URL)"

verify: setup ## check the zips of dist/ as the model zoo does (SCHEMA=a copy of the metadata schema, to stay offline)
	@$(PY) -m tools.verify $(GIVEN) --schema "$(SCHEMA)"

export: setup ## write the trained BUNDLE to one file in dist/ and compare it with PyTorch (FORMAT=torchscript or onnx)
	@$(PY) -m tools.export $(BUNDLE) --format $(FORMAT) --weights "$(WEIGHTS)"

clean: ## remove .venv and the demo
	rm -rf .venv $(DEMO)
