#!/usr/bin/env bash
# Merges a small made-up family and loads the result with transformers, in a
# virtual environment of its own: torch is large and no other test needs it.
set -euo pipefail
cd "$(dirname "$0")/../.."

family=target/ecosystem/family
out=target/ecosystem/out
lambda=0.5

tests/scripts/venv.sh .venv-ecosystem tests/python/requirements-ecosystem.txt
cargo build --release --quiet -p chatvec -p chatvec-tests
target/release/chatvec-lab family --preset tiny --seed 3 --out "$family"
rm -rf "$out"
target/release/chatvec merge --cp "$family/cp" --chat "$family/chat" --base "$family/base" \
    --lambda "$lambda" --out "$out"
.venv-ecosystem/bin/python tests/python/load_with_transformers.py \
    "$family/cp" "$family/chat" "$family/base" "$lambda" "$out"
