# make run: the default pipelines on the bundled datasets; make test: the tests. Both make what they need.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

.PHONY: run test lint viz bench-training bench-recipes bench-attribution bench-precision bench-shapley bench-lime bench-engine bench-compile bench-scale bench-evaluation \
	bench-original bench-posterior bench-mean-field
run: $(READY)
	$(BIN)/kedro run
	@echo "Verdicts: data/08_reporting/<dataset>/verdict.md/<version>/verdict.md; reports and pictures beside them."

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

viz: $(READY)
	$(BIN)/kedro viz run

# ARGS="--runs cifar10:0 --plain-minutes 20" makes it shorter; the real CIFAR-10 is needed
bench-training: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/training.py $(ARGS)

# Held-out accuracy of a network by its recipe; ARGS="--settings '{}' '{epochs: 18, batch_size: 500}' --seeds 0 1"
bench-recipes: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/recipes.py $(ARGS)

# Explanations per second and error beside lime, shap, Captum, shapiq and zennit; ARGS="--datasets mnist --images 4"
bench-attribution: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/attribution.py $(ARGS)

# Whether the faster forward explains as float32 does; ARGS="--datasets mnist --images 1000"
bench-precision: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/precision.py $(ARGS)

# Error of Kernel SHAP by number of forwards; ARGS="--dataset cifar10 --images 6 --budgets 256 1024"
bench-shapley: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/sampling_error.py $(ARGS)

# The same of LIME; ARGS="--dataset cifar10 --images 6 --budgets 256 1024"
bench-lime: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/sampling_error.py --explainer lime $(ARGS)

# What an explanation costs besides its forwards; ARGS="--datasets mnist --images 8 --repeats 5"
bench-engine: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/engine.py $(ARGS)

# What torch.compile gains beside it; ARGS="--datasets mnist --repeats 5"
bench-compile: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/compiled.py $(ARGS)

# Memory at 10,000 and 100,000 images, two Dask workers beside one; ARGS="--images 1000 10000 --shards 8"
bench-scale: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/scale.py $(ARGS)

# What judging costs: the matrix over its forwards, ROAD, Quantus; ARGS="--datasets mnist --images 200"
bench-evaluation: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/evaluation.py $(ARGS)

# The original study's shortcuts and what each does to its numbers; ARGS="--datasets mnist --images 100 --budget 200"
bench-original: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/original.py $(ARGS)

# Seconds of 100 posterior samples of 10,000 images, in float32 and bfloat16; ARGS="--networks 1200,1200 --samples 25"
bench-posterior: $(READY)
	$(BIN)/python benchmarks/posterior.py $(ARGS)

# Held-out accuracy of the Bayesian network by its settings; ARGS="--settings '{shift: 1}' '{epochs: 50}'"
bench-mean-field: $(READY)
	IIC_RAW=$${IIC_RAW:-$(wildcard ../shared/data)} $(BIN)/python benchmarks/mean_field.py $(ARGS)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "iic needs Python 3.11 or newer: call make with PYTHON=python3.11, say."; exit 1; }
	@echo "Installing into .venv (several GB with torch; some minutes) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
