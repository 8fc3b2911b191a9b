#!/usr/bin/env bash
# Measures Chord beside etcd, Redis and the floor: the same closed loop, in turns, in one run. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'TEXT'
Usage: bench/peers.sh [ROW…] [--rounds N] [--seconds S] [--json]

Installs etcd and Redis from Debian's packages if they are missing (as root, or with sudo), builds Chord, and measures
all of them on this machine with the same load generator: 64 clients with a connection and a call each, 10,000 keys of
16 bytes, values of 100 bytes, three servers with three copies, unless the row says otherwise.

Rows (all of them without a name):
  put              durable puts: synced before the answer           etcd, Redis (always, WAIT 1), floor
  put1             the same with one client
  unsynced         puts synced every second                         Redis (everysec, WAIT 1), floor
  get              reads at QUORUM                                  etcd (linearizable), floor
  one              reads at ONE                                     Redis, etcd (serializable)
  report           200,000 calls, half reads, 7 servers, 1/3/5 copies, durable    floor, etcd
  report-unsynced  the same, synced every second                    floor
  four             four servers as server.sh starts them, half reads, durable     floor, etcd
  restart          a million keys on one server: memory a key, time to be back    Redis

The floor is a program of some 300 lines beside this one that moves the same bytes and keeps no promise.
A ratio is Chord's figure over the other's within one round; printed is the median (least–greatest) of the rounds.
TEXT
}

for argument in "$@"; do
  case $argument in -h | --help) usage; exit 0 ;; esac
done

missing=()
command -v etcd >/dev/null || missing+=(etcd-server)
command -v redis-server >/dev/null || missing+=(redis-server)
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}" >&2
  if [ "$(id -u)" = 0 ]; then as=(); else as=(sudo); fi
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2 ||
    { echo "bench/peers.sh: cannot install ${missing[*]}; install them by hand, or choose rows without them" >&2; exit 2; }
fi
cd "$here"
cargo build --release --quiet
exec cargo bench --quiet --bench peers -- --program "${CARGO_TARGET_DIR:-target}/release/chord-server" "$@"
