# `make` alone prints the targets.
BUNDLE ?= resunet
COHORT ?= brats2021
DATA ?=
SCANS ?=
EXTRA ?=
ARGS ?=
RECIPE ?=
ENSEMBLE ?=
MEMBERS ?=
OVER ?= attention
OUT ?= comparisons
MINUTES ?= 30
FOLDS ?= 5
CLUSTER ?=
CROSSVALIDATIONS := $(or $(CROSSVALIDATIONS),$(patsubst %/summary.json,%,$(wildcard bundles/*/crossvalidation/summary.json)))
DEVICES ?= 1
AUGMENT ?=
WEIGHTS ?=
URL ?=
SCHEMA ?=
FORMAT ?= torchscript
DEMO ?= demo
RESULTS ?= bundles/$(BUNDLE)/eval
# the first of these whose version fits
FITS = -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" 2>/dev/null
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11 python; do $$each $(FITS) && echo $$each && break; done)
PY = .venv/bin/python
RUN = $(PY) -m monai.bundle run
COMMA = ,
PINNED = $(shell sed -n 's/^      - \([^ ]*\).*/\1/p' environment.yml) # pip cannot read it: it has conda's format
ONLY_FOR_TORCH = cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton # on Linux
# one word of the shell, whatever it contains: folders may have blanks, quotes and parentheses
quote = '$(subst ','\'',$(value $(1)))'
# config files on top of those that args.yaml lists: a recipe; an ensemble; where patches are augmented; one for several devices
SEVERAL = $(filter-out 1,$(DEVICES))
ON_TOP = $(if $(RECIPE),"bundles/common/recipes/$(RECIPE).yaml"$(COMMA))$(if $(ENSEMBLE),"'$(call quote,ENSEMBLE)'/ensemble.yaml"$(COMMA))\
$(AUGMENT:%="bundles/common/augment_on_%.yaml"$(COMMA))$(if $(SEVERAL),$(1:%="bundles/common/multi_gpu_%.yaml"))
# a recipe sets its own cohort, unless the user sets one
ITS_COHORT = $(if $(RECIPE),$(filter file,$(origin COHORT)))
LAYERS = --args_file bundles/$(BUNDLE)/args.yaml $(if $(strip $(ON_TOP)),--+config_file '[$(ON_TOP)]') \
	$(if $(ITS_COHORT),,--cohort $(COHORT)) --dataset_dir $(call quote,DATA) $(if $(ENSEMBLE),--ckpt_dir $(call quote,ENSEMBLE)) $(ARGS)
SCANNER = --args_file bundles/$(BUNDLE)/args.yaml --cohort $(COHORT) --scans_dir $(call quote,SCANS) \
	--dataset_dir $(call quote,OUT)/prepared --output_dir $(call quote,OUT) $(ARGS)
LAUNCH = $(if $(SEVERAL),$(PY) -m torch.distributed.run --standalone --nproc_per_node=$(DEVICES) -m monai.bundle run,$(RUN))
DEMO_LAYERS = --args_file bundles/neuroseg3d/args.yaml --cohort brats2021 --dataset_dir $(DEMO)/$(1) \
	--patch_size "[64, 64, 64]" --ckpt_dir $(DEMO)/models --output_dir $(DEMO)/results
CROSSVALIDATION = $(if $(filter file,$(origin OUT)),bundles/$(BUNDLE)/crossvalidation,$(call quote,OUT))
ON_FOLDS = $(if $(ITS_COHORT),,--cohort $(COHORT)) --dataset_dir $(call quote,DATA) --folds $(FOLDS) $(if $(RECIPE),--recipe $(RECIPE)) $(ARGS)
FOLDED = --bundle $(BUNDLE) --output $(CROSSVALIDATION) $(ON_FOLDS)
BENCHMARKS = commands training_step waiting inference folder start quality
MEASURED := .venv/benchmark/measured/$(shell printf '%s\n' $(call quote,DATA) $(call quote,COHORT) | cksum | cut -d' ' -f1)
CODE = custom_components tumour tools tests benchmarks
# the BUNDLE that the user gave, else all
GIVEN = $(if $(filter file,$(origin BUNDLE)),all,$(BUNDLE))

# What a user gives is checked here: MONAI would print a traceback, and make would ignore a misspelt variable
require_one_of = $(if $(and $(filter 1,$(words $($(1)))),$(filter $(2),$($(1)))),,$(error $(1) is '$($(1))'; it must be one of $(strip $(2))))
BUNDLES := $(patsubst bundles/%/args.yaml,%,$(sort $(wildcard bundles/*/args.yaml)))
RECIPES := $(patsubst bundles/common/recipes/%.yaml,%,$(sort $(wildcard bundles/common/recipes/*.yaml)))
VARIABLES := SHELL $(shell sed -n 's/^\([A-Z]*\) [?:]*=.*/\1/p' $(lastword $(MAKEFILE_LIST)))
GIVEN_ONES := $(foreach each,$(.VARIABLES),$(if $(findstring command line,$(origin $(each))),$(each)))
MISSPELT := $(firstword $(filter-out $(VARIABLES),$(GIVEN_ONES)))
$(if $(MISSPELT),$(error There is no variable $(MISSPELT); a setting of a run goes into ARGS, as ARGS="--epochs 50"))
# `smoke` takes any word, and an image of Docker is made before the bundles are copied into it
$(if $(and $(BUNDLES),$(filter-out smoke,$(or $(MAKECMDGOALS),help))),$(call require_one_of,BUNDLE,$(BUNDLES) $(if $(filter release verify,$(MAKECMDGOALS)),all)))
$(if $(RECIPE),$(call require_one_of,RECIPE,$(RECIPES)))
# it is a text of Python within one of the shell
$(if $(or $(findstring ",$(value ENSEMBLE)),$(findstring \,$(value ENSEMBLE))),$(error ENSEMBLE is '$(value ENSEMBLE)'; a folder with " or \ cannot be given, so rename it))
$(if $(shell echo $(call quote,DEVICES) | grep -vx '[1-9][0-9]*'),$(error DEVICES is '$(DEVICES)'; it must be a whole number of 1 or more))

.DEFAULT_GOAL := help
.PHONY: help setup lock demo data check train evaluate infer report watch results table compare ablation recipes crossvalidate final best ensemble prepare segment release verify export \
	test smoke lint docs picture show benchmark gpu clean

help: ## print the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: .venv/ready $(EXTRA:%=.venv/%) ## install environment.lock, with checked hashes, and torch into .venv (EXTRA=scanner: also what raw scans need; EXTRA=tracking: MLflow)

.venv/ready: environment.yml environment.lock
	@$(or $(PYTHON),false) $(FITS) || { echo "make setup needs Python 3.11, 3.12 or 3.13 and found none; install one, or name it: make setup PYTHON=path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --no-deps --require-hashes --requirement environment.lock
	@# without a hash: the machine decides which build of torch it needs, with the NVIDIA packages or for the CPU alone
	.venv/bin/pip install --quiet $(filter torch==%,$(PINNED))
	touch $@

.venv/scanner .venv/tracking: .venv/ready pyproject.toml
	@# what we use of `scanner` needs no more than its list and environment.yml
	$(PY) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$(@F)'])" \
		| xargs .venv/bin/pip install --quiet $(if $(filter scanner,$(@F)),--no-deps)
	touch $@

lock: ## after a change of environment.yml: find the versions of all packages it needs, and write them with their hashes
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet uv==0.13.9
	printf '%s\n' $(ONLY_FOR_TORCH) > .venv/lock/excluded.txt
	printf '%s\n' $(PINNED) | .venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-package torch --excludes .venv/lock/excluded.txt --custom-compile-command "make lock" --output-file environment.lock -

demo: setup ## create synthetic patients, train NeuroSeg3D, score it, segment new patients (DEMO=folder)
	$(PY) -m tools patients --output $(call quote,DEMO)/patients --cases 16 --size 96
	$(PY) -m tools patients --output $(call quote,DEMO)/new --cases 2 --size 96 --seed 1
	$(RUN) training $(call DEMO_LAYERS,patients) --epochs 6 --iterations_per_epoch 100 --resume False
	$(RUN) evaluating $(call DEMO_LAYERS,patients) --report_at_end True
	$(RUN) inferring $(call DEMO_LAYERS,new)
	@echo
	@echo "best checkpoint   "$(call quote,DEMO)/models/model.pt
	@echo "scores            "$(call quote,DEMO)/results/scores
	@echo "label maps        "$(call quote,DEMO)/results/segmentations
	@echo "curves            "$(call quote,DEMO)/results/training.csv", "$(call quote,DEMO)/results/tensorboard
	@echo "report            "$(call quote,DEMO)/results/report/report.html
	@echo "real data next    make train BUNDLE=resunet COHORT=brats2021 DATA=the/folder/as/downloaded"

train: setup ## train BUNDLE on COHORT in DATA (ARGS="--epochs 50 ...", RECIPE=a name in bundles/common/recipes, DEVICES=2, AUGMENT=device)
	$(LAUNCH) training $(call LAYERS,train)

evaluate: setup ## score BUNDLE on the patients of DATA that were not used for training
	$(LAUNCH) evaluating $(call LAYERS,evaluate)

infer: setup ## segment the scans in DATA; an interrupted run continues with the cases that have no label map yet (DEVICES=2)
	$(LAUNCH) inferring $(call LAYERS,infer)

prepare: setup ## bring the scans in SCANS, one folder per patient as from the scanner, into the form of BraTS in OUT/prepared (EXTRA=scanner)
	$(RUN) preparing $(SCANNER)

segment: setup ## prepare and segment the patients in SCANS; label maps on their own scans, NIfTI and DICOM SEG, in OUT/native (EXTRA=scanner)
	$(RUN) segmenting $(SCANNER)

data: setup ## download COHORT=msd to DATA (default: data); the others need a registration
	$(PY) -m tools download --cohort $(COHORT) --output $(if $(DATA),$(call quote,DATA),data)

check: setup ## check every case of COHORT in DATA; report the unusable ones and how to fix them
	$(PY) -m tools check --cohort $(COHORT) --dataset_dir $(call quote,DATA) --output bundles/$(BUNDLE)/eval $(ARGS)

report: setup ## write a page of curves, scores and pictures from BUNDLE's results
	$(RUN) reporting $(LAYERS)

watch: setup ## follow the training of BUNDLE in a browser: curves, and a picture at every validation (RESULTS=folder)
	.venv/bin/tensorboard --logdir $(call quote,RESULTS)/tensorboard --reload_interval 10

results: setup ## write the scores of bundles/*/weights into the table of README.md
	@$(PY) -m tools results

table: setup ## print the parameters and multiply-adds of the four networks
	@$(PY) -m tools networks

test: setup ## run the whole test suite
	$(PY) -m pytest

smoke: setup ## run the tests of one variant: BUNDLE
	$(PY) -m pytest -k $(BUNDLE)

lint: setup ## run ruff and mypy
	.venv/bin/ruff check $(CODE)
	.venv/bin/ruff format --check $(CODE)
	.venv/bin/mypy $(CODE)

docs: setup .venv/docs/ready ## write the page of all settings, and these documents as a site to build/site
	@$(PY) -m tools settings
	rm -rf build/pages && mkdir -p build/pages
	git ls-files -z --cached --others --exclude-standard '*.md' '*.ipynb' '*.webp' '*.yaml' CITATION.cff ':!bundles/*/docs/**' ':!bundles/common/card.md' \
		| tar -c --null -T - -f - | tar -x -C build/pages -f -
	.venv/docs/bin/mkdocs build --strict --quiet

picture: setup ## draw the picture of README.md from synthetic patients, with the weights of resunet
	$(PY) -m tools patients --output build/picture/patients --cases 5 --size 160 --seed 3
	mkdir -p build/picture/models && cp bundles/resunet/weights/model.pt bundles/resunet/weights/settings.json build/picture/models
	$(RUN) evaluating --args_file bundles/resunet/args.yaml --cohort brats2021 --dataset_dir build/picture/patients --test_share 1.0 \
		--ckpt_dir build/picture/models --output_dir build/picture/results --report_at_end True
	$(PY) -m tools picture --results build/picture/results --patients build/picture/patients

.venv/docs/ready: .venv/ready docs/requirements.txt
	$(PY) -m venv .venv/docs
	.venv/docs/bin/pip install --quiet --requirement docs/requirements.txt
	touch $@

show: setup ## print the merged config of BUNDLE
	@$(PY) -m tools show bundles/$(BUNDLE)/args.yaml

compare: setup ## train and score all bundles on COHORT in DATA, one table (OUT=folder, ARGS="--epochs 2 ...")
	$(PY) -m tools trials bundles --output $(call quote,OUT)/bundles --cohort $(COHORT) --dataset_dir $(call quote,DATA) $(ARGS)

ablation: setup ## train and score BUNDLE with each value of OVER (attention, size, loss), one table
	$(PY) -m tools trials settings --output $(call quote,OUT)/$(BUNDLE)-$(OVER) --bundle $(BUNDLE) --over $(OVER) --cohort $(COHORT) \
		--dataset_dir $(call quote,DATA) $(ARGS)

recipes: setup ## compare our default and the five recipes after MINUTES of training each, three seeds, one table
	$(PY) -m tools trials recipes --output $(call quote,OUT)/recipes --cohort $(COHORT) --dataset_dir $(call quote,DATA) --minutes $(MINUTES) $(ARGS)

crossvalidate: setup ## train and score each of FOLDS folds of COHORT in DATA with BUNDLE, one table (OUT=folder, CLUSTER=slurm, ARGS="--epochs 50 ...")
	$(PY) -m tools crossvalidate folds $(FOLDED) $(if $(CLUSTER),--cluster $(CLUSTER))

final: setup ## after crossvalidate, with the same variables: train on all patients; the card gives the score of the folds
	$(PY) -m tools crossvalidate final $(FOLDED)

best: setup ## choose network, mirroring and after-treatment from the scores of cross-validations (CROSSVALIDATIONS="DIR DIR ...")
	$(PY) -m tools best --crossvalidations $(call quote,CROSSVALIDATIONS) --output $(call quote,OUT)/best $(ON_FOLDS)

ensemble: setup ## write one network that averages others to OUT (MEMBERS="DIR DIR ..."); then: make evaluate ENSEMBLE=OUT
	@$(PY) -m tools ensemble --members $(call quote,MEMBERS) --output $(call quote,OUT) --bundle $(BUNDLE)

benchmark: $(addprefix $(MEASURED)/,score $(if $(DATA),$(BENCHMARKS))) ## compare the speed with other tools (benchmarks/README.md; DATA=real patients: all benchmarks, takes hours)
	rm -r $(MEASURED)

$(MEASURED)/%: .venv/benchmark/ready # kept until all are done, so that a run that was stopped goes on with the same data
	.venv/benchmark/bin/python -m benchmarks.$* $(if $(filter-out score,$*),--data $(call quote,DATA) --cohort $(COHORT))
	mkdir -p $(@D) && touch $@

.venv/benchmark/ready: .venv/ready benchmarks/requirements.txt # an environment on top of .venv with the other tools
	$(PY) -m venv .venv/benchmark
	$(PY) -c "import site; print(site.getsitepackages()[0])" > $$(echo .venv/benchmark/lib/python3.*/site-packages)/beside.pth
	.venv/benchmark/bin/pip install --quiet --no-deps --requirement benchmarks/requirements.txt
	touch $@

gpu: setup ## check this machine's GPU in under ten minutes and print a table to send (DATA=real patients)
	@$(PY) -m benchmarks.gpu --data $(call quote,DATA) --cohort $(COHORT)

release: setup ## pack all bundles, or BUNDLE, in the model zoo format into dist/ (WEIGHTS=model.pt, URL=its address if it is not packed)
	@$(PY) -m tools release $(GIVEN) --weights $(call quote,WEIGHTS) --url $(call quote,URL)

verify: setup ## check the zips of dist/ as the model zoo does (SCHEMA=a copy of the metadata schema, to work offline)
	@$(PY) -m tools verify $(GIVEN) --schema $(call quote,SCHEMA)

export: setup ## write the trained BUNDLE to one file in dist/ and compare it with PyTorch (FORMAT=torchscript or onnx)
	@$(PY) -m tools export $(BUNDLE) --format $(FORMAT) --weights $(call quote,WEIGHTS)

clean: ## remove .venv and the demo
	rm -rf .venv $(call quote,DEMO)
