# Two commands do everything: `make run` and `make test`. See README.md.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export CGO_ENABLED ?= 0

SCAN ?=
AGE ?=
SEX ?=
STAGE ?= whole

.PHONY: help
help: ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: ## Install what is missing, start the service, analyse a sample, keep serving (SCAN=file.nii.gz AGE=71 SEX=F for another scan)
	@scripts/run.sh "$(SCAN)" "$(AGE)" "$(SEX)"

.PHONY: build
build: ## Build the programs into bin/
	@mkdir -p bin
	go build -o bin/neuroscreen ./cmd/neuroscreen
	go build -o bin/neuroscreen-server ./cmd/api
	go build -o bin/train ./cmd/train

.PHONY: test
test: ## Install what the tests need and run them all
	@scripts/setup.sh postgres
	@scripts/check.sh
	go test ./...

.PHONY: soak
soak: build ## Kill, cut, fill and restart the running programs for a long time; writes docs/reliability.md
	@scripts/setup.sh postgres
	go run ./bench/soak -page docs/reliability.md

.PHONY: bench
bench: build ## Measure speed and memory; prints JSON lines
	@go run ./bench $(SCAN)

.PHONY: train
train: build ## Start or resume training a segmentation network, at low priority (STAGE=whole or inner)
	nice -n 19 bin/train run --stage $(STAGE)

.PHONY: evaluate
evaluate: build ## Print the segmentation's accuracy on held-out maps and labelled real heads
	bin/train evaluate

.PHONY: fit
fit: ## Fit the coefficients of norms and models again from the cohort tables
	$(MAKE) -C fit

.PHONY: generate
generate: ## Write all generated files again (assembly, API types)
	go generate ./...
