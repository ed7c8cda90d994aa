# The one list of tasks; `make help` prints it. Every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Real parts that the tests run against; built once and cached by version.
TEST_PARTS := etcd kube-apiserver kustomize sops helm flux-crds argocd-crds source-controller jaeger prometheus promtool
BENCH_PARTS := etcd kube-apiserver kustomize flux-crds
DEMO_PARTS := $(BENCH_PARTS) argocd-crds jaeger
WORKERS ?= auto
# What chooses moments and victims in `make chaos`; the same seed chooses the same. SCHEDULES are of the simulation.
SCHEDULES ?= 2000
SEED := $(or $(SEED),$(shell od -An -N2 -tu2 /dev/urandom | tr -d ' '))

.DEFAULT_GOAL := help
.PHONY: help setup parts demo test e2e unit coverage chaos lint format generate lock bench-calls bench-peer bench-sharding bench-scale bench-resources bench-monorepo bench-repository bench-tracing clean

help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## Make the virtual environment with the pinned requirements.

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=")'
	@echo "Installing the pinned requirements into $(VENV) (about a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

parts: ## Build etcd, kube-apiserver, source-controller, jaeger and others into the cache (25 minutes once, nothing later).
	@$(PYTHON) tools/build.py $(TEST_PARTS) >/dev/null

demo: $(READY) ## Show the main job on a real API server: Git to AWS Secrets Manager, drift, one change.
	@$(PYTHON) tools/build.py $(DEMO_PARTS) >/dev/null
	@$(BIN)/python examples/demo/run.py

test: $(READY) parts ## Run all tests.
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --cov --cov-report=

e2e: $(READY) parts ## Run the tests on real processes: installed from the chart, replicas, tenants, attacks.
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile tests/e2e tests/helm tests/image

unit: $(READY) ## Run the tests that need no real part: within a minute.
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not real'

coverage: $(READY) ## Report the coverage of the last `make test`, and check it where it must be above 95 %.
	@$(BIN)/python -m coverage report --include='*/model/*,*/decrypt/*,*/apply.py,*/compare.py' --fail-under=95

chaos: $(READY) parts ## Simulate thousands of bad days (SCHEDULES=), then run each on real processes; SEED= repeats a run.
	@echo "SEED=$(SEED)"
	@$(BIN)/python -m lease_sharding.testing $(SEED) --schedules=$(SCHEDULES)
	@$(BIN)/python -m pytest -q --chaos --seed=$(SEED) tests/e2e/test_bad_days.py tests/e2e/test_bad_days_long.py \
		tests/e2e/test_three_stores.py

lint: $(READY) ## Check style, types and the direction of imports.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(READY) ## Format the code.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

generate: $(READY) ## Write the CRDs, their documentation and deploy/install.yaml anew.
	@$(BIN)/python -m secret_manager_controller.crd > helm/secret-manager-controller/files/crds/secretmanagerconfigs.yaml
	@$(BIN)/python -m secret_manager_controller.crd SecretManagerPolicy > helm/secret-manager-controller/files/crds/secretmanagerpolicies.yaml
	@$(BIN)/python -m secret_manager_controller.crd --docs > docs/crd.md
	@$(BIN)/python -m secret_manager_controller.crd SecretManagerPolicy --docs > docs/policy.md
	@$(PYTHON) tools/install_manifest.py > deploy/install.yaml

lock: $(READY) ## Pin all requirements anew, with hashes (needs uv).
	@requirements/lock.sh

bench-calls: $(READY) ## Count store calls: no change, one change, one drift; ends with a line of JSON.
	@$(BIN)/python bench/calls.py

bench-sharding: $(READY) ## Measure three replicas: lease writes, handover, takeover, balance; ends with a line of JSON.
	@$(PYTHON) tools/build.py $(BENCH_PARTS) >/dev/null
	@$(BIN)/python bench/sharding.py

bench-scale: $(READY) ## Measure one replica with 10,000 objects in 500 namespaces; takes minutes, ends with a line of JSON.
	@$(PYTHON) tools/build.py $(BENCH_PARTS) >/dev/null
	@$(BIN)/python bench/scale.py

bench-resources: $(READY) ## Measure memory and CPU of a replica on three stores (OBJECTS=100); ends with a line of JSON.
	@$(PYTHON) tools/build.py $(DEMO_PARTS) >/dev/null
	@$(BIN)/python bench/resources.py --objects $(or $(OBJECTS),100)

bench-peer: $(READY) ## Measure External Secrets Operator beside us, 1,000 secrets; five minutes, ends with a line of JSON.
	@$(PYTHON) tools/build.py etcd kube-apiserver flux-crds external-secrets external-secrets-crds >/dev/null
	@$(BIN)/python bench/peer.py

bench-tracing: $(READY) ## Measure what traces cost, also beside backends that fail; five minutes, ends with a line of JSON.
	@$(PYTHON) tools/build.py jaeger >/dev/null
	@$(BIN)/python bench/tracing.py

bench-monorepo: $(READY) ## Measure one commit for 1,000 objects on one repository; two minutes, ends with a line of JSON.
	@$(PYTHON) tools/build.py sops kustomize >/dev/null
	@$(BIN)/python bench/monorepo.py

bench-repository: $(READY) ## Fetch from a repository with a gigabyte of history and 100,000 files; two minutes, ends with a line of JSON.
	@$(BIN)/python bench/repository.py

clean: ## Remove what the other targets made here; the cache of built parts stays.
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
