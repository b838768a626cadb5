# Bare `make` lists the targets; the text after ## is what it prints.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PROFILE  ?= quick
UPSTREAM ?= process
ARGS     ?=
ROUNDS   ?= 5
SECONDS  ?= 8
TESTFLAGS ?=
BENCHFLAGS ?= -benchtime 1s -count 6
SIMULATIONS ?= 2000
DURATION ?= 30m
KEYS     ?=

PHASES := phase1 phase2 phase3 phase4

.PHONY: help build test calibrate lint bench peers bench-stall bench-load bench-memory bench-hitratio bench-proxy bench-h2 regression-power soak clean compare defects validate $(PHASES:%=validate-%)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9$$():%_ -]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '  %-18s %s\n' 'validate-phaseN' 'one phase, N from 1 to 4; PROFILE=quick|standard|full UPSTREAM=process|container ARGS=…'

build: ## make bin/phasegate and bin/optimizer
	CGO_ENABLED=0 go build -buildvcs=auto -o bin/ ./harness/cmd/phasegate ./optimizer/cmd/optimizer

$(PHASES:%=validate-%): validate-%: build
	./bin/phasegate run $* --profile $(PROFILE) --upstream $(UPSTREAM) $(ARGS)

validate: ## the four phases in order; stops at the first that does not pass
	@for phase in $(PHASES); do $(MAKE) --no-print-directory validate-$$phase || exit; done

compare: build ## optimizer, nginx, Varnish and HAProxy side by side: out/compare-compare; ROUNDS=5 PROFILE=quick ARGS=…
	./bin/phasegate compare compare --systems optimizer,nginx,varnish,haproxy --rounds $(ROUNDS) --profile $(PROFILE) $(ARGS)

# gotestsum prints what go test does, and at the end each skipped test with its
# reason, which go test says only with -v.
test: ## every test; TESTFLAGS=-race for the race detector (needs a C compiler)
	go tool -modfile=ci/tools/go.mod gotestsum --format standard-quiet -- $(TESTFLAGS) ./...

calibrate: ## how often verdicts and stops are wrong at the threshold, and what decides; SIMULATIONS=2000 per row
	@PHASEGATE_CALIBRATE=$(SIMULATIONS) go test -count 1 -timeout 30m -v -run 'Calibration|Power' ./harness/gate \
	  | awk '/_test.go:[0-9]+: / {sub(/^.*_test.go:[0-9]+: /, ""); print} /^(FAIL|ok|panic)/ {print; ok = ok || /^ok/; bad = bad || !/^ok/} END {exit bad || !ok}'

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	cd ci/peers && go vet ./... && go test ./...
	go tool -modfile=ci/tools/go.mod staticcheck ./...

bench: ## go test -bench, ready for benchstat
	go test -run '^$$' -bench . $(BENCHFLAGS) ./...

# Rivals are built in a module of their own, so that none is a dependency of ours.
peers:
	cd ci/peers && go build -o ../../bin/peers/ . fortio.org/fortio github.com/rakyll/hey github.com/tsenart/vegeta/v12

bench-stall: peers ## what p99 each load generator sees of a server that stalls for 2 of 8 s
	./bin/peers/peers stall

bench-load: peers ## the load generators' highest rates and CPU per request, beside each other
	./bin/peers/peers load

bench-memory: build ## who keeps a memory budget: peak memory, objects kept, hit ratio, beside nginx, Varnish and HAProxy; ARGS='-budget 100'
	go build -o bin/ ./ci/memory
	./bin/memory $(ARGS)

bench-hitratio: ## the cache's policies beside plain LRU, otter and the optimum, on recorded and generated keys; KEYS=FILE, a number a line
	cd ci/peers && go build -o ../../bin/peers/ .
	./bin/peers/peers hitratio $(KEYS)

bench-proxy: peers build ## the optimizer beside HAProxy, nginx and Varnish: hits, misses, open loop; ROUNDS=5 SECONDS=8
	./bin/peers/peers proxy $(ROUNDS) $(SECONDS)s

bench-h2: peers build ## hits over HTTP/2 and TLS, the optimizer beside nginx as it comes and tuned, by h2load; ROUNDS=5 SECONDS=8
	./bin/peers/peers http2 $(ROUNDS) $(SECONDS)s

regression-power: build ## does the comparison of revisions catch a planted 10 % and let an unchanged one pass? ROUNDS=5 times each
	ci/regression-power.sh $(ROUNDS) $(ROUNDS)

soak: ## the optimizer under mixed load with faults, race detector on: no leak, no wrong body, nothing stale after a purge; DURATION=30m
	OPTIMIZER_READS=1000000 go test -race -count 1 -v -run TestNothingBornBeforeAPurge ./optimizer
	PHASEGATE_SOAK=$(DURATION) go test -race -count 1 -timeout 0 -v -run TestSoak ./optimizer/soak

defects: build ## every planted defect against the gate that must catch it, and healthy systems against false alarms; ARGS='-runs 5 -systems none,optimizer,nginx,varnish,haproxy'
	go build -o bin/ ./ci/defects ./fixtures/defects/cmd/defect
	./bin/defects $(ARGS)

clean: ## remove bin/ and out/
	rm -rf bin out
