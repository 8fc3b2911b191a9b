#!/usr/bin/env bash
# Checks every dependency: its licence, that there is one version of it, that it comes from the registry, and that no advisory
# names it. Installs cargo-deny if it is missing. Advisories need their database, which a machine without access to it
# cannot have: then the script says so, and the rest still counts.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
if ! cargo deny --version >/dev/null 2>&1; then
  echo "deny.sh: installing cargo-deny $version (some minutes)"
  cargo install --quiet --locked "cargo-deny@$version"
fi

cargo deny --workspace --all-features --log-level warn check bans licenses sources

if cargo deny --log-level error fetch db >/dev/null 2>&1; then
  cargo deny --workspace --all-features --log-level warn check advisories
else
  echo "deny.sh: SKIPPED advisories: their database cannot be had here"
fi
