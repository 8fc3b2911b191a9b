#!/usr/bin/env bash
# Runs every test, after installing what a few of them need and this machine may lack: the Thrift compiler (to check
# that gen/ is current), a word list (real input), Python with its virtual environments and curl (foreign clients).
# Without root, or without Debian's package manager, the tests that lack something say so and are skipped.
set -euo pipefail
cd "$(dirname "$0")"

wanted=()
command -v thrift >/dev/null || wanted+=(thrift-compiler)
python3 -c 'import ensurepip' 2>/dev/null || wanted+=(python3 python3-venv)
[ -f /usr/share/dict/words ] || wanted+=(wamerican)
command -v curl >/dev/null || wanted+=(curl)
# For the torture of real servers: hosts, cuts, disks of their own, failing syncs, other clocks.
command -v ip >/dev/null || wanted+=(iproute2)
command -v nft >/dev/null || wanted+=(nftables)
command -v strace >/dev/null || wanted+=(strace)
command -v mkfs.ext4 >/dev/null || wanted+=(e2fsprogs)
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || wanted+=(libfaketime)
if [ ${#wanted[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test.sh: installing ${wanted[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${wanted[@]}"; } >/dev/null 2>&1 ||
      echo "test.sh: could not install ${wanted[*]}; tests that need them will say that they are skipped" >&2
  else
    echo "test.sh: missing: ${wanted[*]} (as root: apt-get install ${wanted[*]}); tests that need them will say that they are skipped" >&2
  fi
fi

exec cargo test --workspace "$@"
