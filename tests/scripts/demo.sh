#!/usr/bin/env bash
# Merges a made-up model family on this machine and proves every bit of the
# result. Needs nothing but Rust; 600 MB of disk below target/demo.
set -euo pipefail
cd "$(dirname "$0")/../.."

demo=target/demo
family=$demo/family
out=$demo/out
recipe=$demo/recipe.yaml
lambda=0.5

# Bold on a terminal, plain elsewhere.
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
step() { printf '\n%s▸ %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '  $ %s\n' "$*"; "$@" 2>&1 | sed 's/^/  /'; }

step "Build"
cargo build --release --quiet -p chatvec -p chatvec-tests
PATH=$PWD/target/release:$PATH

step "Make a family from a seed: a base, its chat-tuned sibling, its continually pre-trained sibling"
mkdir -p "$demo"
run chatvec-lab family --preset demo --seed 7 --out "$family"
run du -sh "$family/base" "$family/chat" "$family/cp"
rm -rf "$out"

cat > "$recipe" << EOF
cp: $PWD/$family/cp
vectors:
  - chat: $PWD/$family/chat
    base: $PWD/$family/base
    lambda: $lambda
output:
  url: $PWD/$out
EOF

step "Look at a checkpoint"
run chatvec inspect "$family/cp"

step "Plan: every decision, before a single weight is read"
run chatvec plan "$recipe"

step "Merge: out = cp + $lambda × (chat − base)"
time run chatvec merge "$recipe"

step "Prove it: compute all elements again, in another way, and compare bit by bit"
run chatvec-lab verify --cp "$family/cp" --chat "$family/chat" --base "$family/base" \
    --lambda "$lambda" --out "$out"

step "What was written"
run ls -l "$out"

step "What changed most"
run chatvec-lab changes --out "$out" --top 5

step "The manifest says where every byte came from"
run head -c 1200 "$out/chatvec.manifest.json"
echo

step "Merge again: there is nothing left to do"
run chatvec merge "$recipe"

printf '\n%sDone.%s The merged model is in %s.\n' "$bold" "$plain" "$out"
