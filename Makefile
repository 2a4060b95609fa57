# Each target sets up what it needs. `make demo` and `make test` work on a machine with nothing but Python 3.11.

# A system's Python that has XRT's binding comes first, and the environment is made so that it sees the binding.
HAS_XRT = -c 'import importlib.util, sys; sys.exit(sys.version_info < (3, 11) or not importlib.util.find_spec("pyxrt"))'
XRT_PYTHON = for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python $(HAS_XRT) 2>/dev/null && command -v $$python && break; done
PYTHON ?= $(shell $(XRT_PYTHON) || command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP = $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check -c constraints.txt
# Scripts that an older pip writes, such as Python 3.11's own, import more before the program has a Ctrl-C in hand.
# PyTorch's builds for the CPU alone have a local version. pip finds them where it knows their index, which PyTorch's
# own site names: by PIP_EXTRA_INDEX_URL or by its configuration.
CPU_TORCH = torch==$(shell sed -n 's/^torch==//p' constraints.txt)+cpu

.PHONY: help setup demo test test-lowest test-slow test-xrt test-hardware lint format bench sample clean

help:
	@echo "make demo       transcribe the sample with the INT32 backend (tiny.en)"
	@echo "make test       the fast tests"
	@echo "make test-lowest  the same with the lowest versions that pyproject.toml allows (its PyTorch: 5 GB)"
	@echo "make test-slow  every test that needs no NPU: whole development sets, hour-long audio"
	@echo "make test-xrt   the NPU's runtime over Debian 13's own XRT, before a driver that pretends"
	@echo "make test-hardware  on a machine with the NPU: the device against the reference, with a verdict"
	@echo "make lint       ruff and mypy"
	@echo "make format     ruff's formatter"
	@echo "make bench      time, CPU and memory beside OpenVINO GenAI, whisper.cpp, faster-whisper, openai-whisper (BENCH='--quick')"
	@echo "make sample     make the sample again (needs flite)"
	@echo "make clean      remove the environment and caches"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV), once: some minutes, most of it for PyTorch and OpenVINO"
	$(PYTHON) -m venv $(shell $(PYTHON) $(HAS_XRT) && echo --system-site-packages) $(VENV)
	$(PIP) pip
	@$(PIP) '$(CPU_TORCH)' 2>/dev/null || echo "pip reaches no PyTorch for the CPU alone: on x86 3 GB of libraries for GPUs come" \
		"with the other; PIP_EXTRA_INDEX_URL=URL, the index of CPU builds that PyTorch's site names, leaves them out"
	$(PIP) --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/transcribe datasets/sample/harbour.flac --model tiny.en --backend int32

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not network and not hardware and not browser"

test-lowest:
	$(PYTHON) -m venv $(VENV)/lowest
	sed -n 's/^ *"\(.*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml > $(VENV)/lowest/versions
	$(VENV)/lowest/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/lowest/versions --editable .
	$(VENV)/lowest/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not network and not hardware and not browser"

test-slow: $(READY)
	$(BIN)/python -m pytest -m "not network and not hardware"

test-xrt:
	tests/standins/debian13 python -m pytest -p no:cacheprovider tests/kernels/npu/test_debian_xrt.py tests/kernels/npu/test_pyxrt_standin.py

test-hardware: $(READY)
	$(BIN)/python -m pytest -m hardware tests/kernels/npu/test_hardware.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python scripts/bench.py $(BENCH)

sample: $(READY)
	$(BIN)/python scripts/make_sample.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
