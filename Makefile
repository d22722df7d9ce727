# weft: the commands of a developer. `make` lists them.
#
# cargo runs as you; only the lab and the tests need root, for which sudo is asked where you are not root.

NODES  ?= 3
PODS   ?= 2
LAB    ?= lab
OUTPUT ?= table
MODE   ?= auto
KERNEL ?= 6.1
REPOSITORY ?= localhost

TARGET ?= $(shell uname -m)-unknown-linux-musl
OUT    ?= $(or $(CARGO_TARGET_DIR),target)
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)
# rustup puts cargo where a shell that was open before does not look.
export PATH := $(PATH):$(HOME)/.cargo/bin

weft-lab = $(SUDO) env WEFT_BIN_DIR=$(abspath $(OUT)/$(TARGET)/release) $(OUT)/debug/weft-lab --name $(LAB)

.DEFAULT_GOAL := help
.PHONY: help build image lab lab-down test e2e guest lint bench clean setup-%

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup-%:
	@tests/setup.sh $*

# The loader of a static binary takes packed relocations, which are a twentieth of the usual ones.
UPPER := $(shell echo $(TARGET) | tr a-z- A-Z_)
LEAN  := CARGO_TARGET_$(UPPER)_RUSTFLAGS="-C link-arg=-Wl,-z,pack-relative-relocs"

# One call of cargo a binary: built together, the plugin would get the agent's features of the crates they share.
build: setup-build ## the two binaries (static, stripped) and weft-lab
	@$(LEAN) cargo build --locked --release --target $(TARGET) --package weft-cni --bin weft-cni
	@$(LEAN) cargo build --locked --release --target $(TARGET) --package weft --bin weft
	@cargo build --locked --package weft-tests --bin weft-lab

# arm64 comes along if its binaries are there, from `make build TARGET=aarch64-unknown-linux-musl` (CONTRIBUTING.md).
image: setup-build build ## the container image, without an engine, into target/image: REPOSITORY=localhost
	@cargo build --locked --package weft-image
	@$(OUT)/debug/weft-image --repository $(REPOSITORY) --out $(OUT)/image --date $$(git log -1 --format=%ct) \
		--revision $$(git rev-parse HEAD)$$(git diff --quiet HEAD || echo -dirty) \
		$$(for weft in $(OUT)/*-unknown-linux-musl/release/weft; do echo --binaries $${weft%/weft}; done)

lab: setup-lab build ## a cluster network on this machine: NODES=3 PODS=2 LAB=lab OUTPUT=table|json MODE=auto|ipvs|nftables
	@$(weft-lab) --output $(OUTPUT) up --nodes $(NODES) --pods $(PODS) --proxy-mode $(MODE)

lab-down: setup-build ## remove every trace of the lab: LAB=lab
	@test -x $(OUT)/debug/weft-lab || cargo build --locked --package weft-tests --bin weft-lab
	@$(weft-lab) down

test: setup-test build ## all tests, in namespaces of their own
	@WEFT_BIN_DIR=$(abspath $(OUT)/$(TARGET)/release) tests/run.sh

# WEFT_PEERS: a folder with kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kubectl, containerd 2 with ctr and
# its shim, and what else CONTRIBUTING.md names. What is missing is said, and skipped.
e2e: setup-e2e image ## weft on real Kubernetes nodes: WEFT_PEERS=folder, WEFT_E2E_OUTAGE=300 for a longer outage
	@cargo build --locked --target $(TARGET) --package weft-tests --bin weft-probe
	@$(if $(WEFT_PEERS),WEFT_PEERS=$(abspath $(WEFT_PEERS))) WEFT_BIN_DIR=$(abspath $(OUT)/$(TARGET)/release) \
		tests/run.sh --package weft-tests --test 'e2e_*' -- --test-threads 1

guest: ARGS ?= --package weft-tests --features guest --test 'guest*'
guest: setup-test ## tests on another kernel: KERNEL=6.1|6.12 ARGS="-p weft-netlink --test nft -- FILTER"
	@WEFT_GUEST_KERNEL=$(KERNEL) tests/guest.sh $(ARGS)

lint: setup-lint ## format, clippy, the named crates, licenses and sources of the dependencies
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	@tests/named-crates.sh
	@tests/deny.sh $(OUT)

bench: ARGS ?= cni
bench: setup-bench build ## the measurements, side by side with the peers: ARGS="cni --rounds 1000", ARGS=overlay WEFT_PEERS=folder
	@cargo build --locked --release --target $(TARGET) --package weft-bench --no-default-features --bin cni-floor
	@cargo build --locked --profile quick --package weft-bench --bin weft-bench
	@$(SUDO) env WEFT_BIN_DIR=$(abspath $(OUT)/$(TARGET)/release) $(if $(WEFT_PEERS),WEFT_PEERS=$(abspath $(WEFT_PEERS))) \
		$(OUT)/quick/weft-bench $(ARGS)

clean: ## remove what was built
	@cargo clean
