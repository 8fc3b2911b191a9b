#!/usr/bin/env bash
# Stops the servers that server.sh has started, and no other process. See --help.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/scripts/processes.sh"

usage() {
  cat <<'TEXT'
Usage: ./terminate_servers.sh [--data DIR] [--clean]

Stops the servers recorded in the data root (./data): in order, then, after 10 s, by force.
  --data DIR   data root; refused unless server.sh has started something there
  --clean      afterwards delete their data, logs and cluster file (only what server.sh and the servers have made)
TEXT
}

stop_all() {
  local pid_file id pid one pids=() stopped=0
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
      rm -f -- "$pid_file"
    fi
  done
  for one in ${pids[@]+"${pids[@]}"}; do
    id=${one%%:*} pid=${one##*:}
    if running "$root/$id.pid" >/dev/null; then
      stop "$id" "$pid"
    fi
    rm -f -- "$root/$id.pid"
    echo "server $id: pid $pid stopped"
    stopped=$((stopped + 1))
  done
  [ "$stopped" -gt 0 ] || echo "no servers were running in $root"
}

# A server's folder has its lock file, and its identity or nothing else; anything else is somebody else's.
is_server_folder() {
  [ -f "$1/lock" ] && [ ! -L "$1" ] && { [ -f "$1/identity.json" ] || [ "$(ls -A -- "$1")" = lock ]; }
}

# True if the cluster file is one that server.sh has written.
is_ours() {
  local line
  [ -f "$1" ] && [ ! -L "$1" ] && read -r line <"$1" && [[ $line == '{"name": "demo", "replicas": '* ]]
}

clean() {
  local folder id rest stays=no
  for folder in "$root"/*/; do
    folder=${folder%/}
    id=$(basename "$folder")
    if ! is_number "$id" || ! is_server_folder "$folder"; then continue; fi
    # A server started by hand is not ours to stop, so its folder is not ours to delete.
    if ! flock -n "$folder/lock" true; then
      echo "server $id: its folder is in use by a server that was started by hand; it stays, and so does the cluster file" >&2
      stays=yes
      continue
    fi
    rm -rf -- "$folder"
    rm -f -- "$root/$id.log" "$root/$id.log.1"
  done
  [ "$stays" = no ] || return 0
  if [ -f "$root/cluster.json" ]; then
    # Of those whose folder was lost.
    # shellcheck disable=SC2034
    while read -r id rest; do
      [ -e "$root/$id" ] || rm -f -- "$root/$id.log" "$root/$id.log.1"
    done < <(members "$root/cluster.json")
  fi
  if is_ours "$root/cluster.json"; then rm -f -- "$root/cluster.json" "$root/cluster.json.new"; fi
  rm -f -- "$root/.scripts.lock"
  rmdir -- "$root" 2>/dev/null || true
  echo "data deleted in $root"
}

root=./data clean=no
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --data)
      { [ $# -ge 2 ] && [ -n "$2" ]; } || refuse "--data needs a value; see --help"
      root=$2
      shift 2 ;;
    --clean) clean=yes; shift ;;
    *) refuse "unknown argument $1; see --help" ;;
  esac
done
if [ ! -d "$root" ]; then
  echo "no servers: there is no folder $root"
  exit 0
fi
root=$(full_path "$root")
is_data_root "$root" || refuse "$root is no data root of server.sh; nothing was stopped or deleted"
lock
stop_all
[ "$clean" = no ] || clean
