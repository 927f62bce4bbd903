# liferaft: `make iso` builds the rescue medium, `make test` proves it. Both set up what they need first.
PYTHON := .venv/bin/python
ISO := out/liferaft-amd64.iso
# Installing a system into a folder, loop devices and mounts need root; everything else does not.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)

.PHONY: help setup iso iso-arm64 test-arm64 test-forms reproducible lint test test-fast test-disk test-boot test-fuzz fuzz bench demo

help:
	@echo "setup      install what is needed (Debian packages, .venv); quick when there is nothing to do"
	@echo "iso        build $(ISO) from the embedded recipe"
	@echo "reproducible  two builds from nothing, which must be equal bit for bit (10 minutes)"
	@echo "test       all rings: unit, flow, disk, boot"
	@echo "test-fast  unit and flow, style and types among them: no device, no virtual machine"
	@echo "test-boot  the boot ring alone"
	@echo "test-forms systems boot from a disk of another form (dos to GPT, sectors of 4096), stacks become smaller, roots in LUKS and on a mirror, clones of them, the cloud and the backports kernel, Wi-Fi; not part of test"
	@echo "test-arm64 a medium for arm64, built and booted here; not part of test: an emulated processor takes its time"
	@echo "fuzz       coverage-guided fuzzing of every reader, 5 minutes each"
	@echo "lint       ruff and mypy"
	@echo "bench      the figures, side by side"
	@echo "demo       a machine is captured, lost, restored and boots again, with a timeline"

setup:
	@.ci/setup

iso: setup
	@mkdir -p $(dir $(ISO))
# 4: built, with a warning (the mirror does not answer, the cache does).
	$(SUDO) .venv/bin/liferaft build -o $(ISO) || [ $$? = 4 ]

# Built by emulation where this machine is no arm64: docs/medium.md says what that needs.
ISO_ARM64 := out/liferaft-arm64.iso
iso-arm64:
	@.ci/setup arm64
	@mkdir -p $(dir $(ISO_ARM64))
	$(SUDO) .venv/bin/liferaft build --architecture arm64 -o $(ISO_ARM64) || [ $$? = 4 ]

# Other folders, other caches, another time, nothing shared but pip's downloads.
reproducible: setup
	$(SUDO) rm -rf .cache/reproducible
	mkdir -p .cache/reproducible/one .cache/reproducible/two/deeper
	$(SUDO) .venv/bin/liferaft build --cache .cache/reproducible/one/cache -o .cache/reproducible/one/medium.iso || [ $$? = 4 ]
	$(SUDO) .venv/bin/liferaft build --cache .cache/reproducible/two/cache -o .cache/reproducible/two/deeper/medium.iso || [ $$? = 4 ]
	cmp .cache/reproducible/one/medium.iso .cache/reproducible/two/deeper/medium.iso
	$(SUDO) rm -rf .cache/reproducible

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

test-fast: setup
	$(PYTHON) -m pytest -n 2 tests/unit tests/flow

# Seconds for each target: `make fuzz FUZZ_SECONDS=3600` over night.
FUZZ_SECONDS := 300
fuzz: setup
	$(PYTHON) -m tests.fuzz --seconds $(FUZZ_SECONDS)

test-fuzz: setup
	$(PYTHON) -m tests.fuzz --seconds 4 --seed 1

test-disk: setup
	$(SUDO) $(PYTHON) -m pytest -p no:cacheprovider tests/disk

# QEMU's multi-threaded emulation lets a guest kernel panic now and then while it patches itself, seconds after its
# start. Only that is tried once more, and pytest counts it; a system that panics for a reason does so again.
# BOOT_PART='-m "not thorough"' is CI's part of the ring: .ci/run.
BOOT_PART :=
test-boot: iso
	$(SUDO) $(PYTHON) -m pytest -p no:cacheprovider --reruns 1 --only-rerun "Kernel panic" $(BOOT_PART) tests/boot

test-arm64: iso-arm64
	$(SUDO) $(PYTHON) -m pytest -p no:cacheprovider -s tests/arm64

test-forms: setup
	$(SUDO) $(PYTHON) -m pytest -p no:cacheprovider --reruns 1 --only-rerun "Kernel panic" tests/forms

test: test-fast test-fuzz test-disk test-boot

bench: setup
	$(SUDO) $(PYTHON) -m benchmarks

demo: iso
	$(SUDO) $(PYTHON) -m tests.boot.demo
