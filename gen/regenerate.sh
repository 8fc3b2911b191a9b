#!/usr/bin/env bash
# Generates gen/chord.rs from chord.thrift with Debian's thrift-compiler (0.17).
#   gen/regenerate.sh          writes it
#   gen/regenerate.sh --check  exits 1 if the committed file is not what the compiler makes
set -euo pipefail
cd "$(dirname "$0")/.."
command -v thrift >/dev/null || { echo "gen/regenerate.sh: the Thrift compiler is missing; install it with: apt-get install thrift-compiler" >&2; exit 2; }
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
thrift --gen rs -out "$fresh" chord.thrift
if [ "${1:-}" = "--check" ]; then
  diff -u gen/chord.rs "$fresh/chord.rs" || { echo "gen/chord.rs is not current: run gen/regenerate.sh" >&2; exit 1; }
else
  cp "$fresh/chord.rs" gen/chord.rs
fi
