# `make help` lists the targets.

SHELL := /bin/bash
BUILD := build
CLUSTER = $(BUILD)/cluster/cluster --project .

# Where a release's images will be pushed: the one place to change when the project moves.
REGISTRY ?= registry.example/cloud-provider-upcloud
RELEASE = go -C hack/release build -buildvcs=false -o ../../$(BUILD)/release-tool . && $(BUILD)/release-tool
RELEASE_FLAGS = --version "$(VERSION)" --registry "$(REGISTRY)" $(if $(DRY_RUN),--dry-run) $(if $(LOCK),--lock "$(LOCK)") \
  $(if $(APT_SOURCES),--apt-sources "$(APT_SOURCES)") $(if $(GO_TOOLCHAIN),--toolchain "$(GO_TOOLCHAIN)") $(if $(BUILDER),--builder "$(BUILDER)")

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build csi-driver, ccm, upcloud-sim and upcloud-doctor into build/bin
	CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=$$(hack/version)" -o $(BUILD)/bin/ ./cmd/...

demo: cluster ## show the main job on a real local Kubernetes (as root); KEEP=1 leaves it up
	$(CLUSTER) demo $(if $(KEEP),--keep)

e2e: cluster ## take the manifests of examples/ through their lives on a local Kubernetes (as root); KEEP=1 leaves it up, ONLY=xfs,block runs these groups
	$(CLUSTER) e2e $(if $(KEEP),--keep) $(if $(ONLY),--only $(ONLY))

e2e-lb: cluster ## run Kubernetes' own specs of load balancers on a local Kubernetes (as root, 12 minutes); SHORT=1 leaves out two that take ten
	$(CLUSTER) e2e-lb $(if $(KEEP),--keep) $(if $(SHORT),--short)

up: cluster ## bring up a local Kubernetes with the shipped manifests and leave it up (as root)
	$(CLUSTER) up

demo-down: ## take down the local Kubernetes that runs on this machine
	@if [ -x $(BUILD)/cluster/cluster ]; then $(CLUSTER) down; else cd test/cluster && go run . down; fi

test: ## set up, then run every test, with the race detector
	@hack/install-packages test
	hack/test

property: ## look for new faults: random sequences with new seeds, and fuzzing; COUNT=3, STEPS=3000 a seed, FUZZTIME=30s by default
	hack/property

test-vm: ## take the node plugin through its work in a virtual machine with hot-plugged disks; TEST="-run Machine/xfs" for some
	@hack/test-vm $(TEST)

demo-shared: ## show two clusters behind one load balancer: /foo is answered by one, /bar by the other (a minute)
	cd test/cluster && KUBERNETES_DIR="$$(go run -buildvcs=false . kubernetes --project ../..)" && export KUBERNETES_DIR && \
	  cd ../.. && go test -count=1 -timeout 30m -v ./test/integration -run TestTwoClusters -args -rights=false

integration: ## run the CCM against a real kube-apiserver and the simulator, then install the chart and the single files there (some minutes; the first time builds Kubernetes)
	@hack/install-packages integration
	cd test/cluster && KUBERNETES_DIR="$$(go run -buildvcs=false . kubernetes --project ../..)" && export KUBERNETES_DIR && \
	  cd ../.. && go test -count=1 -parallel 8 -timeout 30m ./test/integration && go -C test/helm test -count=1 -timeout 10m ./install

conformance: ## hold the simulator against the official SDK's live tests and recordings (a few minutes)
	go run ./test/conformance

bench: ## measure API calls, also at rest, attach throughput, staging (as root), memory, the CCM, load balancers and fairness (18 minutes); figures also in build/bench.json
	go run -buildvcs=false ./test/bench --output $(BUILD)/bench.json

bench-sim: ## measure the simulator with 10,000 storages, 5,000 servers and 1,000 load balancers
	go test -run '^$$' -bench LargeAccount -benchtime 10x ./pkg/simulator

fuzz: ## fuzz what others write, FUZZTIME (1m) for each target, two at a time
	hack/fuzz

manifests: ## make deploy/kubernetes and the chart's README from the chart, and the single files of a release into build/release; REGISTRY and VERSION name the images
	go -C test/helm run -buildvcs=false . manifests
	go -C test/helm run -buildvcs=false . release --registry "$(REGISTRY)" --version "$(VERSION)"

images-list: ## print all images that the chart can need, for a mirror; VALUES=file for those that these values need
	@go -C test/helm run -buildvcs=false . images $(if $(VALUES),--values "$(abspath $(VALUES))")

lint: ## check formatting, vet, and the linters of .golangci.yaml
	hack/lint

vulncheck: ## look for known vulnerabilities that the programs call (a minute; the first time some more)
	hack/vulncheck

release: ## make a release in build/release from a clean work tree: VERSION=v0.1.0 REGISTRY=host/folder; DRY_RUN=1 tries one that the changelog has not
	$(RELEASE) build $(RELEASE_FLAGS) --output $(BUILD)/release

release-check: ## make the release twice, from two folders, compare both, and run what is in the images (as root; some minutes, and more the first time)
	@hack/release-check $(RELEASE_FLAGS)

prepare-release: ## write a version into manifests, chart and changelog: VERSION=v0.1.0
	$(RELEASE) prepare --version "$(VERSION)"

clean: ## remove what was built here (the cache of the local Kubernetes stays in the user's cache folder)
	rm -rf $(BUILD)

cluster:
	@if [ "$$(id -u)" != 0 ]; then echo "The local Kubernetes is made of namespaces, mounts and loop devices: run as root, for example sudo -E make $(firstword $(MAKECMDGOALS))." >&2; exit 1; fi
	@hack/install-packages demo
	@mkdir -p $(BUILD)/cluster
	cd test/cluster && CGO_ENABLED=0 go build -buildvcs=false -o ../../$(BUILD)/cluster/cluster .

.PHONY: help build demo demo-shared e2e e2e-lb up demo-down test property test-vm fuzz integration conformance bench bench-sim manifests images-list lint vulncheck release release-check prepare-release clean cluster
.DEFAULT_GOAL := help
