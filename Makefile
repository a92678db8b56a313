# make demo   everything from a fresh clone to a live avatar in the browser (without a terminal: to a check of it)
# make test   every check CI makes: format, lint, types, layers, tests
# make bench  the tables of benchmarks/README.md, measured here
# make soak   an hour of viewers who come and go: memory, latency, what is left behind

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
BUILT_FROM := pyproject.toml constraints.txt $(wildcard lhm_runtime/rasterizer/cpu/*.h lhm_runtime/rasterizer/cpu/*.cpp lhm_runtime/rasterizer/cpu/CMakeLists.txt)

WEB_SOURCES := $(shell find clients/web -path clients/web/node_modules -prune -o -type f -print)

# What MediaPipe's wheel expects of the system.
SYSTEM_PACKAGES := libegl1 libgles2 libgl1 libglib2.0-0

.PHONY: demo test bench soak clean

demo: $(VENV)/product streaming/web/index.html
	@if [ -t 1 ] && [ -z "$$CI" ]; then $(BIN)/lhm-live demo; else $(BIN)/lhm-live demo --check -o demo.mp4; fi

test: $(VENV)/developer $(VENV)/browser $(VENV)/broker $(VENV)/turn $(VENV)/sfu streaming/web/index.html
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	@sh tools/with_node.sh npm run --silent check
	@sh tools/with_node.sh npm test --silent
	$(BIN)/hadolint deploy/Dockerfile deploy/services.Dockerfile
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/developer
	$(BIN)/lhm-live bench rasterizer
	$(BIN)/lhm-live bench rasterizer --size 1024
	$(BIN)/python benchmarks/skinning_rule.py
	$(BIN)/python benchmarks/parity.py
	$(BIN)/python benchmarks/steady_state.py

soak: $(VENV)/developer
	$(BIN)/python benchmarks/soak.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lhm-live needs Python 3.11 or newer; $(PYTHON) is older: make PYTHON=/path/to/python3.11"; exit 1; }
	@command -v c++ >/dev/null || { echo "lhm-live needs a C++ compiler: apt-get install g++"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/system: | $(VENV)/bin/python
	@sh tools/install_system_packages.sh $(SYSTEM_PACKAGES)
	@touch $@

# what the tests drive; where it cannot be had they skip, and say so
$(VENV)/browser: | $(VENV)/bin/python
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || sh tools/install_system_packages.sh chromium || echo "without Chromium the tests in a browser are skipped"
	@touch $@

$(VENV)/broker: | $(VENV)/bin/python
	@command -v mosquitto >/dev/null || test -x /usr/sbin/mosquitto || sh tools/install_system_packages.sh mosquitto || echo "without mosquitto the tests of MQTT are skipped"
	@touch $@

$(VENV)/turn: | $(VENV)/bin/python
	@command -v turnserver >/dev/null || sh tools/install_system_packages.sh coturn || echo "without coturn the tests through a TURN server are skipped"
	@touch $@

$(VENV)/sfu: | $(VENV)/bin/python
	@{ command -v janus && command -v ip; } >/dev/null || sh tools/install_system_packages.sh janus iproute2 || echo "without Janus the tests of an audience are skipped"
	@touch $@

$(VENV)/product: $(BUILT_FROM) | $(VENV)/bin/python $(VENV)/system
	@echo "installing lhm-live and building its kernel (a minute or two)"
	$(PIP) --editable .
	@touch $@

$(VENV)/developer: $(BUILT_FROM) | $(VENV)/bin/python $(VENV)/system
	@echo "installing lhm-live with the tools of its developers (a few minutes)"
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/product

streaming/web/index.html: $(WEB_SOURCES) tools/with_node.sh | $(VENV)/bin/python
	@echo "building the web client"
	@sh tools/with_node.sh npm ci --silent --no-audit --no-fund
	@sh tools/with_node.sh npm run --silent build
	@touch $@

clean:
	rm -rf $(VENV) build streaming/web clients/web/node_modules demo.mp4 demo.png
