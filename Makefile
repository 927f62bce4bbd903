# liferaft: `make iso` builds the rescue medium, `make test` proves it. Both set up what they need first.
PYTHON := .venv/bin/python
ISO := out/liferaft-amd64.iso

.PHONY: help setup iso lint test test-fast test-disk test-boot bench demo

help:
	@echo "setup      install what is needed (Debian packages, .venv); quick when there is nothing to do"
	@echo "iso        build $(ISO) from the embedded recipe"
	@echo "test       all rings: lint, unit, flow, disk, boot"
	@echo "test-fast  lint, unit and flow: no device, no virtual machine"
	@echo "test-boot  the boot ring alone"
	@echo "lint       ruff and mypy"
	@echo "bench      the figures, side by side"
	@echo "demo       a machine is captured, lost, restored and boots again, with a timeline"

setup:
	@.ci/setup

iso: setup
	@mkdir -p $(dir $(ISO))
	.venv/bin/liferaft build -o $(ISO)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

test-fast: lint
	$(PYTHON) -m pytest tests/unit tests/flow

test-disk: setup
	$(PYTHON) -m pytest tests/disk

test-boot: iso
	$(PYTHON) -m pytest tests/boot

test: test-fast test-disk test-boot

bench: setup
	$(PYTHON) -m benchmarks

demo: iso
	$(PYTHON) -m tests.boot.demo
