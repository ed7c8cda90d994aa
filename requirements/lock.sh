#!/usr/bin/env bash
# Pin every requirement with its hashes and without any index address.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@"
}
lock pyproject.toml -o requirements/runtime.txt
lock requirements/build.in -o requirements/build.txt
lock pyproject.toml requirements/dev.in requirements/build.in -o requirements/dev.txt
