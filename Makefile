# Two commands do their own set-up: `make demo` runs the main job, `make test` passes the tests.
CARGO := cargo
# Built without libtorch; everything else needs it. Two separate builds, so that no feature of the second reaches `pipe`.
TORCH_CRATES := -p pipe-kernels -p pipe-nn -p stage-train -p stage-evaluate -p pipe-torch
TORCH_FEATURES := --features stage-train/torch,stage-evaluate/torch
CRASH_TEST := $(CARGO) run --locked --release -p pipe-testkit --bin crash-test --
LIGHT_CRATES := --workspace --exclude pipe-kernels --exclude pipe-nn --exclude pipe-torch

.PHONY: help demo build libtorch gpu test gpu-test crash-test lint fuzz fixtures clean
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## Fetch libtorch, build, run examples/quickstart
	target/release/pipe run examples/quickstart/pipeline.yaml

build: libtorch ## Build target/release/{pipe,pipe-torch}
	$(CARGO) build --locked --release -p pipe
	$(CARGO) build --locked --release -p pipe-torch

libtorch: ## Fetch libtorch into .libtorch/ (CPU)
	scripts/libtorch

gpu: build ## Fetch the CUDA libraries into .libtorch/ too
	scripts/libtorch --gpu

fixtures:
	scripts/qwen3-tokenizer
	scripts/seaweedfs

test: build fixtures ## Run every test
	$(CARGO) test --locked --release $(LIGHT_CRATES)
	$(CARGO) test --locked --release $(TORCH_CRATES) $(TORCH_FEATURES)
	$(CRASH_TEST) --random 20

gpu-test: gpu ## Run the tests of kernels and training on the card, and say which it is
	@nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader
	PIPE_TEST_GPU=1 $(CARGO) test --locked --release -p pipe-kernels -p pipe-nn -p stage-train --features stage-train/torch

crash-test: ## Kill pipe at every crash point and at 500 random moments
	$(CRASH_TEST) --random 500

lint: libtorch ## Formatting, clippy and documentation, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --release --all-targets $(LIGHT_CRATES) -- -D warnings
	$(CARGO) clippy --locked --release --all-targets $(TORCH_CRATES) $(TORCH_FEATURES) -- -D warnings

fuzz: ## Ten minutes of every fuzz target (FUZZ_SECONDS=600)
	fuzz/run

clean: ## Remove what was built (libtorch and caches stay)
	$(CARGO) clean
