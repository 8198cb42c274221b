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
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: ## Install what is missing, start the service, analyse a sample, keep serving (SCAN=file.nii.gz AGE=71 SEX=F for another scan)
	@scripts/run.sh "$(SCAN)" "$(AGE)" "$(SEX)"

# The pages are embedded into the server; what is not built yet, or older than
# its sources, is built first.
WEB_SOURCES := $(wildcard web/src/*) web/build.mjs web/tsconfig.json

web/node_modules/.package-lock.json: web/package-lock.json web/package.json
	@scripts/setup.sh node
	cd web && npm ci --no-fund --no-audit --silent
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd web && npm run --silent check && npm run --silent build

.PHONY: web
web: web/dist/index.html ## Build the clinicians' pages into web/dist

.PHONY: build
build: web ## Build the programs into bin/
	@mkdir -p bin
	go build -o bin/neuroscreen ./cmd/neuroscreen
	go build -o bin/neuroscreen-server ./cmd/api
	go build -o bin/train ./cmd/train

.PHONY: test
test: web ## Install what the tests need and run them all
	@scripts/setup.sh postgres browser pdf orthanc fit
	@scripts/check.sh
	go test -timeout 30m ./...

.PHONY: soak
soak: build ## Kill, cut, fill and restart the running programs for a long time; writes docs/reliability.md
	@scripts/setup.sh postgres
	go run ./bench/soak -page docs/reliability.md

.PHONY: bench
bench: build ## Measure speed and memory; prints JSON lines
	@go run ./bench $(SCAN)

.PHONY: compare-functional
compare-functional: ## Time the steps on a functional run, RUN=run.nii.gz TR=seconds, beside nilearn and nipy, installed into build/compare-functional
	@scripts/compare.sh --functional $(RUN) $(TR)

.PHONY: compare
compare: ## Time the same networks in ONNX Runtime and PyTorch, which it installs into build/compare
	@scripts/compare.sh

.PHONY: load
load: build ## Measure many uploaders, workers and cases at once; writes docs/load.md
	@scripts/setup.sh postgres
	go run ./bench -load all -page docs/load.md

.PHONY: train
train: build ## Start or resume training a segmentation network, at low priority (STAGE=locate, whole, half or inner)
	nice -n 19 bin/train run --stage $(STAGE)

.PHONY: evaluate
evaluate: build ## Print the segmentation's accuracy on held-out maps and labelled real heads
	bin/train evaluate

.PHONY: fit
fit: ## Fit the coefficients of norms and models again from the cohort tables
	$(MAKE) -C fit

.PHONY: generate
generate: web/node_modules/.package-lock.json ## Write all generated files again (assembly, API types)
	go generate ./...
	cd web && npm run --silent generate
