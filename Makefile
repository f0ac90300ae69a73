# Two targets are for users: `make demo` and `make test`. Both do all the set-up they need, on Debian 12 or 13.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What napctl runs on; what the lab and the demo add; what the tests and the benchmark add; what the virtual machine needs.
RUN_PACKAGES := libbpf1
LAB_PACKAGES := ethtool gcc iproute2 libc6-dev memcached util-linux
DEV_PACKAGES := bpftrace busybox-static caddy chromium clang dpdk-dev haproxy iperf3 libbpf-dev llvm man-db mawk mount nftables nghttp2-client nginx procps prometheus redis-server redis-tools sockperf strace udev wrk
VM_PACKAGES := busybox-static ethtool iproute2 iputils-ping kmod nftables procps qemu-system-x86 strace

# What makes a root of Debian 13: to build the package in, and to try it.
DEBIAN_PACKAGES := debian-archive-keyring e2fsprogs iproute2 mmdebstrap util-linux
# What the long tests add to all of these: containers, a switch with DPDK.
LONG_PACKAGES := openvswitch-switch-dpdk podman

# Emulated, a test may take 20 times as long as on the machine itself.
IN_VM := scripts/run-in-vm --timeout 1800 $(BIN)/pytest --timeout 600 -p no:cacheprovider
# What pytest makes of the tests is kept for the next process, whatever PYTHONDONTWRITEBYTECODE says: it takes 5 s of each.
PYTEST := $(AS_ROOT) env PYTHONDONTWRITEBYTECODE= $(if $(CI),CI=$(CI)) $(BIN)/pytest

# What `make test-long` consists of: each can be made alone, and takes less than 45 minutes, but for long-soak: an hour.
LONG := long-unit long-kills long-servers long-service long-soak long-follow long-figures long-vm long-debian
LONG_SOAK := tests/lab/service/test_soak.py
LONG_KILLS := $(addprefix tests/lab/,change/test_crash.py plan/test_apply.py plan/test_apply_surprises.py \
    attach/test_attach_bad_input.py attach/test_steering.py)
LONG_SERVERS := $(addprefix tests/lab/attach/,test_left_alone.py test_modes_of_servers.py test_real_servers.py)
LONG_FOLLOW := $(addprefix tests/lab/attach/,test_adopting.py test_follow.py test_follow_cost.py)

.PHONY: help setup demo check test test-unit test-vm test-lab test-long long-setup $(LONG) deb bench bpf \
    man format clean

help:
	@echo 'make demo   the same memcached with interrupts, busy polling and suspension (root or sudo, 3 minutes)'
	@echo 'make check  lint, types and the unit tests but the heavy ones (a minute): after every change'
	@echo 'make test   lint, types and all tests (root or sudo, 10 minutes): test-unit beside test-vm, then test-lab'
	@echo 'make test-vm  the tests on NICs alone, in a virtual machine (root or sudo, 3 minutes)'
	@echo 'make test-long  the promises about many trials, with all of them (root or sudo, 5 hours)'
	@echo '                also by part: $(LONG)'
	@echo 'make setup  .venv/bin/napctl'
	@echo 'make deb    the package for Debian 13, in dist (root or sudo)'
	@echo 'make bench  what the probe and the commands cost, as ratios (root)'
	@echo 'make bpf    rebuild the BPF object after a change of its source'
	@echo 'make man    rebuild the man pages after a change of help texts'

setup: $(VENV)/napctl
	@scripts/install-debian-packages $(RUN_PACKAGES)
	@# Under `sudo make` it is made by root, and belongs to who typed that: `make check` writes to it.
	@[ -z "$$SUDO_UID" ] || chown -R "$$SUDO_UID:$$SUDO_GID" $(VENV)

demo: setup
	@scripts/install-debian-packages $(LAB_PACKAGES)
	$(AS_ROOT) $(BIN)/napctl demo

# The fast loop. Nothing is installed from Debian: what a test needs and does not find, it passes over. What pytest makes of the
# tests is kept for the next time, whatever PYTHONDONTWRITEBYTECODE says: it takes 5 s of each process.
check: $(VENV)/test
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --quiet --numprocesses 2 --dist loadgroup -m 'not heavy' tests/unit

test: $(VENV)/compiled
	@scripts/install-debian-packages $(RUN_PACKAGES) $(LAB_PACKAGES) $(DEV_PACKAGES) $(VM_PACKAGES)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync test-vm test-unit
	@$(MAKE) --no-print-directory test-lab

# What takes no time of others: it may run beside the virtual machine, which takes one CPU and comes first.
test-unit: $(VENV)/compiled
	nice $(BIN)/ruff check
	nice $(BIN)/ruff format --check
	nice $(BIN)/mypy
	nice $(PYTEST) --numprocesses 2 --dist loadgroup tests/unit

test-vm: $(VENV)/compiled
	@scripts/install-debian-packages $(RUN_PACKAGES) $(VM_PACKAGES)
	@if [ "$$(uname -m)" = x86_64 ]; then set -x; $(AS_ROOT) $(IN_VM) tests/vm; \
	    else echo 'tests/vm is left out: the virtual machine is made for x86-64'; fi

# Alone on the machine: first what waits most of the time, side by side; then what measures time.
test-lab: $(VENV)/compiled
	@scripts/install-debian-packages $(RUN_PACKAGES) $(LAB_PACKAGES) $(DEV_PACKAGES)
	$(PYTEST) -m 'not alone' --numprocesses 5 --dist loadfile tests/lab
	$(PYTEST) -m alone tests/lab

# One part after the other; `make test` makes a random sample of most of it.
test-long: $(LONG)

$(LONG): long-setup

long-setup: $(VENV)/compiled
	@scripts/install-debian-packages $(RUN_PACKAGES) $(LAB_PACKAGES) $(DEV_PACKAGES) $(VM_PACKAGES) $(DEBIAN_PACKAGES) $(LONG_PACKAGES)

long-unit:
	$(PYTEST) --long -m 'trials or long' -rP --numprocesses 2 tests/unit

long-kills:
	$(PYTEST) --long -m 'trials or long' -rP $(LONG_KILLS)

long-servers:
	$(PYTEST) --long -m 'trials or long' -rP $(LONG_SERVERS)

long-service:
	$(PYTEST) --long -m 'trials or long' -rP tests/lab/service --ignore=$(LONG_SOAK)

# An hour; NAPCTL_SOAK_MINUTES=5 for a try.
long-soak:
	$(AS_ROOT) env $(if $(NAPCTL_SOAK_MINUTES),NAPCTL_SOAK_MINUTES=$(NAPCTL_SOAK_MINUTES)) $(BIN)/pytest --long -m long -rP $(LONG_SOAK)

long-follow:
	$(PYTEST) --long -m 'trials or long' -rP $(LONG_FOLLOW)

long-figures:
	$(PYTEST) --long -m 'trials or long' -rP tests/lab \
	    $(addprefix --ignore=,$(LONG_KILLS) $(LONG_SERVERS) $(LONG_FOLLOW) tests/lab/service)

long-vm:
	$(AS_ROOT) scripts/run-in-vm --timeout 2700 --outside '$(BIN)/python -m tests.vm.outside' \
	    $(BIN)/pytest --long -m 'trials or long' -rP -p no:cacheprovider tests/vm

# The package: built, installed in a fresh Debian 13, and booted under its systemd.
long-debian:
	$(PYTEST) --long -m long -rP tests/debian

deb:
	@scripts/install-debian-packages $(DEBIAN_PACKAGES)
	$(AS_ROOT) scripts/build-deb dist

bench: $(VENV)/test
	@scripts/install-debian-packages $(RUN_PACKAGES) $(LAB_PACKAGES) $(DEV_PACKAGES)
	$(AS_ROOT) unshare --mount sh -c 'mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; \
	    exec $(BIN)/python -m bench'

bpf: $(VENV)/test
	@scripts/install-debian-packages $(DEV_PACKAGES)
	scripts/build-bpf

man: $(VENV)/test
	rm -f man/*.1
	$(BIN)/python scripts/build-man man

format: $(VENV)/test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/python:
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	    scripts/install-debian-packages python3-venv && rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@touch $@

$(VENV)/napctl: $(VENV)/python pyproject.toml
	@echo 'installing napctl into $(VENV)'
	@$(BIN)/pip install --quiet --editable .
	@touch $@

# Compiled here, whatever PYTHONDONTWRITEBYTECODE says: an emulated CPU compiles napctl for seconds, at each start.
$(VENV)/compiled: $(VENV)/test $(shell find src tests -name '*.py')
	@$(BIN)/python -m compileall -q src tests
	@touch $@

$(VENV)/test: $(VENV)/napctl pyproject.toml
	@echo 'installing what the tests need into $(VENV)'
	@$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@
