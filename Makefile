# make demo    pictures in out/, from nothing        make test    everything that CI runs
# make lint    ruff and pyright                      make evidence  docs/evidence.md
# make mutants faults put into the core, each of which its tests must notice
# make pictures  all that is drawn from the network: README, thumbnails, help, screenshots
PYTHON ?= python3
TORCH ?= 2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
CPU_WHEELS := https://download.pytorch.org/whl/cpu

.PHONY: demo test test-comfy compatibility comfyui mutants lint evidence pictures clean

demo: $(VENV)/.ready
	$(BIN)/selective-sigma demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest tests --ignore=tests/comfy
	@$(MAKE) --no-print-directory test-comfy

# On every ComfyUI that is found; COMFYUI_PATH names one in another place.
test-comfy:
	@tests/comfy/run.sh

# docs/compatibility.md, from a run of all of it.
compatibility: test-comfy
	$(PYTHON) tests/comfy/compatibility.py

# A .venv in each of them, with what they and the tests need, and a browser.
comfyui:
	tests/comfy/setup.sh

mutants: $(VENV)/.ready
	$(BIN)/python tests/mutants.py

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# All questions, or some: make evidence ASK="--only leak every --models photographs".
# Refuses a dirty tree.
evidence: $(VENV)/.ready
	$(BIN)/python -m benchmarks $(ASK)

# PHOTOGRAPHS: a folder with the held-out photographs. Screenshots need a ComfyUI that `make comfyui` has made ready.
PHOTOGRAPHS ?= ../shared/photos
COMFYUI_PATH ?= $(HOME)/comfy/ComfyUI
pictures: $(VENV)/.ready
	$(BIN)/python docs/draw_detail.py $(PHOTOGRAPHS)
	$(BIN)/python docs/thumbnails.py $(PHOTOGRAPHS)
	if test -x $(COMFYUI_PATH)/.venv/bin/python; then $(COMFYUI_PATH)/.venv/bin/python docs/screenshots.py; \
	  else echo "no ComfyUI in $(COMFYUI_PATH): docs/comfyui-*.png stay as they are"; fi
	if command -v oxipng; then oxipng -o 4 --strip safe docs/*.png; fi

# The CPU build of torch where no GPU asks for more: several GB less. From the wheels at hand
# first, then from PyTorch's own index, then whatever the platform's default build is.
$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null \
	  || { ! command -v nvidia-smi >/dev/null \
	       && { $(PIP) install -q "torch==$(TORCH)+cpu" 2>/dev/null \
	            || $(PIP) install -q "torch==$(TORCH)+cpu" --index-url $(CPU_WHEELS) 2>/dev/null; }; } \
	  || $(PIP) install -q "torch==$(TORCH)"
	$(PIP) install -q -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) out
