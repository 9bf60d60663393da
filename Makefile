# The targets are the same here and in CI. Each says what it does after "##".
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Two packages at a time, each with its own servers, is what two cores carry.
PARALLEL ?= 2
TIMEOUT ?= 60m
FUZZTIME ?= 10s

build: ## compile everything; programs land in bin/
	go build ./...
	@if [ -d cmd ]; then mkdir -p bin && go build -o bin/ ./cmd/...; fi

demo: build ## start a real cluster in a temporary folder with the proxy in front of it; Ctrl-C ends it
	scripts/need-postgres.sh
	bin/shardproxy demo

need: ## install what the tests use and this machine lacks (PostgreSQL, drivers, Chromium, promtool, an exporter)
	scripts/need-postgres.sh
	scripts/need-drivers.sh
	scripts/need-browser.sh
	scripts/need-prometheus.sh
	scripts/need-exporter.sh >/dev/null

test: need build lint allocs helm race ## everything CI checks: installs what is missing, builds, lints, runs all tests with the race detector

race: ## run all tests with the race detector, those of sessions under both drivers
	go test -race -p $(PARALLEL) -timeout $(TIMEOUT) ./...
	SHARDPROXY_TEST_DRIVER=goroutine go test -race -timeout $(TIMEOUT) ./proxy

helm: build ## render the Helm chart and check what comes of it, in a module of its own
	cd deploy/helm/test && go vet ./... && SHARDPROXY_BIN=$(CURDIR)/bin/shardproxy go test -count 1 ./...

chart: ## pack the Helm chart with alerts and dashboards: dist/shardproxy-chart.tgz
	scripts/chart.sh

VERSION ?= 0.1.0~dev

deb: ## make a Debian package for this release of Debian: dist/shardproxy_$(VERSION)_*.deb
	scripts/deb.sh $(VERSION)

allocs: ## run without the race detector the tests that it hides: allocations, system calls
	scripts/allocs.sh

lint: ## check formatting, go vet, staticcheck, shell syntax
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not gofmt'ed (make fmt):"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	@for script in scripts/*.sh .ci/run; do bash -n "$$script" || exit 1; done

fmt: ## format all Go files
	gofmt -w .

fuzz-short: ## run every fuzz target for FUZZTIME (10s)
	scripts/fuzz.sh $(FUZZTIME)

# Flags of internal/bench: "make bench BENCHFLAGS='-rounds 9 -parts idle'".
BENCHFLAGS ?=

bench: build ## compare with PgBouncer and no pooler; prints the tables and writes them into docs/benchmarks.md
	scripts/need-postgres.sh
	scripts/need-pgbouncer.sh
	go run ./internal/bench -out docs/benchmarks.md $(BENCHFLAGS)

bench-smoke: build ## half a minute of the same, on small numbers: that it runs, not how fast
	scripts/need-postgres.sh
	scripts/need-pgbouncer.sh
	go run ./internal/bench -rounds 1 -each 200ms -scale 1 -modes simple,prepared -clients 8 -rate-clients 8 -shard-clients 8 -storm 50 -idle 200 -cold 200 -settle 200ms

regress: ## PostgreSQL's own regression suite, directly and through the proxy (MODE=transaction or session), against testdata/regress
	scripts/need-postgres.sh
	nice scripts/regress.sh

regress-shards: ## its files about queries, with their tables declared sharded, against one PostgreSQL and testdata/regress/shards.txt
	scripts/need-postgres.sh
	nice scripts/regress-shards.sh

nightly: need build lint ## the long way: all tests five times with the race detector, every fuzz target for ten minutes
	go test -race -count 5 -p $(PARALLEL) -timeout 3h $$(go list ./... | grep -v -e /drivertest -e /ormtest)
	@# Their stages are made once for a process, and their scripts leave their tables there.
	for i in 1 2 3 4 5; do go test -race -count 1 -p 1 -timeout 1h ./internal/drivertest ./internal/ormtest || exit 1; done
	@# Random statements against one PostgreSQL: 51,000 over two shards, 51,000 over four.
	for shards in 2 4; do \
		SHARDPROXY_TEST_SEQUENCES=170 SHARDPROXY_TEST_SHARDS=$$shards SHARDPROXY_TEST_SEED=$$RANDOM \
			go test -count 1 -timeout 1h -run TestDiff/random ./cmd/shardproxy || exit 1; done
	@# The same while results are kept: 12,000 over two shards, 12,000 over four, each followed by queries of before.
	for shards in 2 4; do \
		SHARDPROXY_TEST_SEQUENCES=40 SHARDPROXY_TEST_SHARDS=$$shards SHARDPROXY_TEST_SEED=$$RANDOM \
			go test -count 1 -timeout 1h -run 'TestDiffKept$$' ./cmd/shardproxy || exit 1; done
	scripts/regress-shards.sh
	@# Ten million rows in order through a proxy that needs no more than 128 MiB.
	SHARDPROXY_TEST_ROWS=5000000 go test -count 1 -timeout 1h -run 'TestScatterMemory$$' ./cmd/shardproxy
	@# The corpus of statements over one shard, where nothing is refused, and over four; three million keys of each type.
	for shards in 1 4; do \
		SHARDPROXY_TEST_SHARDS=$$shards go test -count 1 -timeout 1h -run 'TestDiff$$/corpus' ./cmd/shardproxy || exit 1; done
	@# All of it while every shard hides the rows of all others.
	for shards in 2 4; do \
		SHARDPROXY_TEST_SEQUENCES=1 SHARDPROXY_TEST_SHARDS=$$shards go test -count 1 -timeout 1h -run 'TestDiffHidden$$/corpus' ./cmd/shardproxy || exit 1; done
	SHARDPROXY_TEST_HASH=3000000 go test -count 1 -timeout 1h -run TestHashesAgainstPostgreSQL ./shardmap
	@# Transactions over several shards: long histories, a crash at each message, 100,000 totals of a bank.
	SHARDPROXY_TEST_HISTORY=200000 go test -count 1 -timeout 1h -run TestSpeed ./internal/listappend
	SHARDPROXY_TEST_SOAK=600 SHARDPROXY_TEST_SEED=$$RANDOM go test -count 1 -timeout 2h -run TestListAppend ./cmd/shardproxy
	SHARDPROXY_TEST_CRASHES=100 go test -count 1 -timeout 1h -run TestCrashes ./cmd/shardproxy
	SHARDPROXY_TEST_TOTALS=100000 SHARDPROXY_TEST_SEED=$$RANDOM go test -count 1 -timeout 4h -run TestBank ./cmd/shardproxy
	@# Slots that move: under load and under harm, and both proxies killed in each moment of a move.
	SHARDPROXY_TEST_MOVES=40 SHARDPROXY_TEST_TOTALS=10000 SHARDPROXY_TEST_SEED=$$RANDOM go test -count 1 -timeout 2h -run 'TestMoveSlots|TestShardsJoin' ./cmd/shardproxy
	SHARDPROXY_TEST_MOVES=5 SHARDPROXY_TEST_SEED=$$RANDOM go test -race -count 1 -timeout 1h -run 'TestMoveRollback|TestGrow|TestMoveWithoutProxy' ./cmd/shardproxy
	SHARDPROXY_TEST_CRASHES=100 go test -count 1 -timeout 1h -run 'TestMoverCrashes|TestJoinCrashes' ./cmd/shardproxy
	@# A thousand deadlocks over two, three and four shards, and ten minutes of contention without one.
	for seed in 2 3 4; do \
		SHARDPROXY_TEST_CYCLES=340 SHARDPROXY_TEST_SEED=$$seed go test -count 1 -timeout 1h -run TestDeadlockCycles ./cmd/shardproxy || exit 1; done
	SHARDPROXY_TEST_CONTENTION=600 go test -count 1 -timeout 1h -run TestNoFalseDeadlock ./cmd/shardproxy
	@# Half an hour of all that clients and operators do: nothing that is held at rest may grow.
	SHARDPROXY_TEST_SOAK=1800 SHARDPROXY_TEST_SEED=$$RANDOM go test -count 1 -timeout 2h -run 'TestSoakFlat$$' ./cmd/shardproxy
	scripts/fuzz.sh 10m

help: ## print this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# The steps of "test" build on each other.
.NOTPARALLEL:
.PHONY: build demo need test race helm chart deb allocs lint fmt fuzz-short bench bench-smoke regress regress-shards nightly help
