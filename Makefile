# Each target also works typed by hand.
GO ?= go
export CGO_ENABLED = 0
FUZZTIME ?= 20s
FLAGS = -trimpath -buildvcs=false

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 18

build: ## the programs, for this machine, in build/bin
	$(GO) build $(FLAGS) -o build/bin/ ./cmd/*

page: ## the page to seal in, build/encrypt.html (RECIPIENTS=FILE builds those in)
	$(GO) run ./cmd/encrypt/page -recipients '$(RECIPIENTS)' -o build/encrypt.html

demo: ## a trusted build and a fork's, on a real agent
	@$(GO) run ./tests/demo

demo-docker: ## agents in containers of this machine's Docker Engine (needs root)
	@$(GO) run ./tests/demo/docker

test: ## every test (the first time builds a buildkite-agent, two minutes; with Docker more, four)
	@$(GO) run ./tests/prepare
	$(GO) vet ./...
	$(GO) test ./cmd/... ./internal/...
	$(GO) test -count=1 -timeout 30m ./tests/... # the cache does not see the programs that these build
	$(GO) -C tests/page vet ./...
	$(GO) -C tests/page test -count=1 ./...

bench: ## the hook against other ways, into docs/bench.md and .svg (about six minutes)
	@$(GO) run ./tests/bench

bench-split: ## what split mode adds to a job, into docs/bench.md (as root)
	@$(GO) run ./tests/bench split

bench-containers: ## what the check takes in a container, into docs/bench.md (as root)
	@$(GO) run ./tests/bench containers

lint: ## gofmt, vet for each platform, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l . | sed 's/$$/: not formatted, run gofmt -w/'; exit 1; }
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./cmd/... ./internal/...
	GOOS=windows $(GO) vet ./cmd/encrypt
	GOOS=js GOARCH=wasm $(GO) vet ./cmd/encrypt
	$(GO) -C tests/tools/lint build -o ../../../build/tools/staticcheck honnef.co/go/tools/cmd/staticcheck
	build/tools/staticcheck ./...
	cd tests/page && ../../build/tools/staticcheck ./...

image-context: ## what the image of an agent is built from, in build/image
	mkdir -p build/image
	cp deploy/image/Dockerfile deploy/image/.dockerignore build/image/
	$(GO) run ./deploy/image/rootfs -o build/image/rootfs.tar

IMAGE ?= juliagpu-agent
BASE ?= ubuntu:24.04
image: image-context ## the image of an agent (AGENT_VERSION=, AGENT_SHA256=; BASE=, IMAGE=)
	docker build --force-rm -t '$(IMAGE)' --build-arg base='$(BASE)' \
		--build-arg agent_version='$(AGENT_VERSION)' --build-arg agent_sha256='$(AGENT_SHA256)' build/image

fuzz: ## each fuzz target for FUZZTIME
	@for file in $$(grep -rl '^func Fuzz' --include=*_test.go cmd internal); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$file); do \
			echo "$$target ($$(dirname $$file))"; \
			$(GO) test ./$$(dirname $$file) -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) || exit 1; \
		done; \
	done

install: build image-context ## the hooks, encrypt and juliagpu on this host, as docs/operators.md says (needs root; DESTDIR=DIR: below that)
	install -d $(DESTDIR)/usr/bin $(DESTDIR)/usr/lib/juliagpu-secrets/hooks
	install -m 755 build/bin/environment build/bin/pre-bootstrap build/bin/pre-command build/bin/pre-exit build/bin/launch build/bin/agent-startup build/bin/attest $(DESTDIR)/usr/lib/juliagpu-secrets/
	ln -sfn ../environment ../pre-command ../pre-exit $(DESTDIR)/usr/lib/juliagpu-secrets/hooks/
	echo '#!/usr/lib/juliagpu-secrets/pre-bootstrap' | install -m 755 /dev/stdin $(DESTDIR)/usr/lib/juliagpu-secrets/hooks/pre-bootstrap
	echo '#!/usr/lib/juliagpu-secrets/agent-startup' | install -m 755 /dev/stdin $(DESTDIR)/usr/lib/juliagpu-secrets/hooks/agent-startup
	install -m 755 build/bin/encrypt build/bin/juliagpu $(DESTDIR)/usr/bin/
	install -d $(DESTDIR)/usr/share/juliagpu-secrets/image
	install -C -m 644 build/image/Dockerfile build/image/.dockerignore build/image/rootfs.tar $(DESTDIR)/usr/share/juliagpu-secrets/image/
	install -d $(DESTDIR)/usr/share/juliagpu-secrets/compose
	install -m 644 deploy/compose/*.yml $(DESTDIR)/usr/share/juliagpu-secrets/compose/
	install -d $(DESTDIR)/usr/lib/systemd/system $(DESTDIR)/usr/share/juliagpu-secrets/systemd
	install -m 644 deploy/systemd/buildkite-agent@.service $(DESTDIR)/usr/lib/systemd/system/
	install -m 644 deploy/systemd/encrypted.conf deploy/systemd/docker.conf $(DESTDIR)/usr/share/juliagpu-secrets/systemd/

MAC = $(DESTDIR)/opt/juliagpu-secrets

install-macos: build ## the hooks, encrypt and juliagpu on a Mac, as docs/macos.md says (needs root)
	install -d -m 755 $(MAC)/hooks
	install -m 755 build/bin/environment build/bin/pre-bootstrap build/bin/pre-command build/bin/pre-exit build/bin/agent-startup build/bin/attest build/bin/encrypt build/bin/juliagpu $(MAC)/
	ln -sf ../environment ../pre-command ../pre-exit $(MAC)/hooks/
	echo '#!/opt/juliagpu-secrets/pre-bootstrap' >$(MAC)/hooks/pre-bootstrap
	echo '#!/opt/juliagpu-secrets/agent-startup' >$(MAC)/hooks/agent-startup
	chmod 755 $(MAC)/hooks/pre-bootstrap $(MAC)/hooks/agent-startup

clean: ## what the targets above left
	rm -rf build

.PHONY: help build page demo demo-docker test bench bench-split bench-containers lint image-context image fuzz install install-macos clean
