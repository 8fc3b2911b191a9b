#!/usr/bin/env bash
# Stops the servers that server.sh has started, and no other process. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/scripts/processes.sh"

root=./data clean=no
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      cat <<'TEXT'
Usage: ./terminate_servers.sh [--data DIR] [--clean]

Stops the servers recorded in the data root (./data): in order, then, after 10 s, by force.
  --data DIR   data root
  --clean      afterwards delete their data, logs and cluster file (only what server.sh and the servers have made)
TEXT
      exit 0 ;;
    --data)
      [ $# -ge 2 ] || die "--data needs a value; see --help"
      root=$2
      shift 2 ;;
    --clean) clean=yes; shift ;;
    *) die "unknown argument $1; see --help" ;;
  esac
done
if [ ! -d "$root" ]; then
  echo "no servers: there is no folder $root"
  exit 0
fi
root=$(cd "$root" && pwd)
exec 9>"$root/.scripts.lock"
flock -w 60 9 || die "another start or stop is at work in $root; try again"

stopped=0 pids=()
for pid_file in "$root"/*.pid; do
  [ -e "$pid_file" ] || continue
  id=$(basename "$pid_file" .pid)
  is_number "$id" || continue
  if pid=$(running "$pid_file"); then
    # All are asked before any is waited for.
    kill -TERM "$pid" 2>/dev/null || true
    pids+=("$id:$pid")
  else
    echo "server $id: was not running any more"
    rm -f "$pid_file"
  fi
done
for one in ${pids[@]+"${pids[@]}"}; do
  id=${one%%:*} pid=${one##*:}
  if running "$root/$id.pid" >/dev/null; then
    stop "$id" "$pid"
  fi
  rm -f "$root/$id.pid"
  echo "server $id: pid $pid stopped"
  stopped=$((stopped + 1))
done
[ "$stopped" -gt 0 ] || echo "no servers were running in $root"

if [ "$clean" = yes ]; then
  for folder in "$root"/*/; do
    folder=${folder%/}
    id=$(basename "$folder")
    is_number "$id" || continue
    # A server's folder has its lock file; anything else is somebody else's.
    if [ -e "$folder/lock" ] && [ ! -L "$folder" ]; then
      # A server started by hand is not ours to stop, so its folder is not ours to delete.
      if ! flock -n "$folder/lock" true; then
        echo "server $id: its folder is in use by a server that was started by hand; it stays" >&2
        continue
      fi
      rm -rf -- "$folder"
      rm -f -- "$root/$id.log"
    fi
  done
  rm -f -- "$root/cluster.json" "$root/.scripts.lock"
  rmdir -- "$root" 2>/dev/null || true
  echo "data deleted in $root"
fi
