#!/usr/bin/env bash
# Starts a cluster of chord-server on this machine, or one server of it, and looks after it. See --help.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/scripts/processes.sh"
. "$here/scripts/cluster.sh"
. "$here/scripts/await.sh"

usage() {
  cat <<'TEXT'
Usage: ./server.sh [options]           start all servers of the cluster (four on ports 9000-9003)
       ./server.sh PORT [options]      (re)start the server on that port
       ./server.sh stop PORT|all       stop one server, or all of them
       ./server.sh status              show each server: port, HTTP, pid, up, votes, keys
       ./server.sh logs PORT [-f]      show the end of a server's log; -f: go on

Options:
  --nodes N           servers                                         [4]
  --rep K             copies of each key                              [3, or N if less]
  --partitioner P     byte-ordered or hashed                          [byte-ordered]
  --placement P       ring or groups                                  [ring]
  --port-base PORT    port of server 0                                [9000]
  --http-base PORT    HTTP port of server 0, or off                   [8000]
  --data DIR          data root, in the current folder                [./data]
  --sync S            always, or an interval like 100ms               [always]
  --accept-loss       with PORT: let this server vote although what it has lost is gone for good

The cluster is written to DIR/cluster.json the first time, and whenever one of the first six options is given;
otherwise the file that is there counts. Programs are built first, unless CHORD_BIN names a folder that has them.
A log of more than 10 MiB goes to ID.log.1 whenever this script is called.

Exit codes: 0 done, 1 it failed, or (status) a server is down, 2 wrong options or folder; nothing was done.
TEXT
}

# ── options ──

nodes=4 rep="" partitioner=byte-ordered placement=ring base=9000 http=8000 root=./data sync="" shaped=no
accept=no follow=no words=()

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --accept-loss) accept=yes; shift ;;
      -f) follow=yes; shift ;;
      --nodes | --rep | --partitioner | --placement | --port-base | --http-base | --data | --sync)
        { [ $# -ge 2 ] && [ -n "$2" ]; } || refuse "$1 needs a value; see --help"
        case $1 in
          --nodes) nodes=$(decimal "$2") shaped=yes ;;
          --rep) rep=$(decimal "$2") shaped=yes ;;
          --partitioner) partitioner=$2 shaped=yes ;;
          --placement) placement=$2 shaped=yes ;;
          --port-base) base=$(decimal "$2") shaped=yes ;;
          --http-base) http=$2 shaped=yes ;;
          --data) root=$2 ;;
          --sync) sync=$2 ;;
        esac
        shift 2 ;;
      -*) refuse "unknown option $1; see --help" ;;
      *) words+=("$1"); shift ;;
    esac
  done
  if [ "$http" = off ]; then http=""; else http=$(decimal "$http"); fi
  [ "$nodes" -ge 1 ] || refuse "--nodes is 0; choose at least 1"
  [ -n "$rep" ] || rep=$((nodes < 3 ? nodes : 3))
}

decimal() {
  number "$1" || refuse "'$1' is no number; see --help"
}

# ── programs ──

# What CHORD_BIN names is used as it is.
builds=$([ -n "${CHORD_BIN:-}" ] && echo no || echo yes)
programs=${CHORD_BIN:-${CARGO_TARGET_DIR:-$here/target}/release}
server=$programs/chord-server

# Cargo shows its own bar on a terminal; elsewhere its errors are enough.
build() {
  local flags=(--release)
  [ -t 2 ] || flags+=(--quiet)
  while [ $# -gt 0 ]; do flags+=(--bin "$1"); shift; done
  (cd -- "$here" && cargo build "${flags[@]}" 9>&-)
}

# Only what the servers need; the other programs are built once they run.
build_server() {
  if [ "$builds" = yes ]; then
    [ -x "$server" ] || echo "building chord-server; the first time this takes a few minutes"
    build chord-server || die "the build has failed; see above"
  fi
  need_server
}

build_clients() {
  [ "$builds" = yes ] || return 0
  [ -x "$programs/chord-client" ] || echo "the servers run; building chord-client and chord-inspector"
  build chord-client chord-inspector || die "the servers run, but the build of chord-client and chord-inspector has failed; see above"
}

need_server() {
  [ -x "$server" ] || refuse "there is no chord-server in $programs; ${CHORD_BIN:+unset CHORD_BIN, or }build it"
}

# The environment could name another cluster than the file.
clear_environment() {
  local name
  for name in $(compgen -e | grep '^CHORD_' || true); do
    case $name in CHORD_LOG | CHORD_MEMORY | CHORD_SECRET_FILE | CHORD_START_SECONDS) ;; *) unset "$name" ;; esac
  done
}

# ── start ──

# What is to be said of servers that were started with an empty folder, or run already, by id.
declare -A new=()

launch() { # id port
  local id=$1 port=$2 flags=(--cluster "$file" --data "$root/$1") pid
  [ -z "$sync" ] || flags+=(--sync "$sync")
  [ "$accept" = no ] || flags+=(--accept-loss)
  bound_log "$id"
  printf '%s\n' "--- started" >>"$root/$id.log"
  # A session of its own, so that a closed terminal does not end it; without the lock of this script.
  setsid nohup "$server" "$port" "${flags[@]}" </dev/null >>"$root/$id.log" 2>&1 9>&- &
  pid=$!
  disown "$pid"
  record "$pid" >"$root/$id.pid"
}

# Starts one server, or restarts it if it was named.
start_one() { # id port
  local id=$1 port=$2 pid
  if pid=$(running "$root/$id.pid"); then
    if [ -z "$only" ]; then
      new[$id]="already running"
      return
    fi
    stop "$id" "$pid"
  fi
  if [ "$first" = no ] && [ "$accept" = no ] && [ ! -e "$root/$id/identity.json" ]; then
    echo "server $id (port $port) has no data: it does not vote until it has been rebuilt"
  fi
  launch "$id" "$port"
}

start() { # [PORT]
  local only=${1:-} first=no id port address list=()
  [ "$accept" = no ] || [ -n "$only" ] || refuse "--accept-loss needs the port of the server that may vote; see --help"
  build_server
  clear_environment
  # Only what is made here gets a mode: a folder that was there is its owner's.
  [ -d "$root" ] || { mkdir -p -- "$(dirname -- "$root")" && mkdir -m 700 -- "$root"; } 2>/dev/null ||
    refuse "$(id -un) cannot make the folder $root; choose another with --data"
  root=$(full_path "$root") file=$root/cluster.json
  umask 077
  lock
  [ -e "$file" ] || first=yes
  if [ "$first" = yes ] || [ "$shaped" = yes ]; then write_cluster; fi
  members=$(members "$file")
  [ -n "$members" ] || refuse "$file lists no servers as server.sh writes them; start chord-server by hand"
  bound_logs
  # Where a range has one copy nobody can be asked what it may have lost; on the cluster's very first start, nothing.
  if [ "$first" = yes ] && has_single_copies; then accept=yes; fi

  if [ -n "$only" ]; then list=("$(member_on "$only")"); else mapfile -t list <<<"$members"; fi
  for one in "${list[@]}"; do
    read -r id port address <<<"$one"
    start_one "$id" "$port"
  done
  # Others may stop what is waited for.
  exec 9>&-
  await "${list[@]}"
  build_clients
}

# ── stop, status, logs ──

# Opens the data root of a cluster that was started before.
open_root() {
  [ -d "$root" ] || refuse "there is no folder $root; choose another with --data"
  root=$(full_path "$root") file=$root/cluster.json
  { is_data_root "$root" && [ -e "$file" ]; } || refuse "$root is no data root of server.sh; choose another with --data"
  members=$(members "$file")
  umask 077
}

stop_one() { # PORT
  local id port address pid one
  open_root
  one=$(member_on "$1")
  read -r id port address <<<"$one"
  lock
  bound_logs
  if pid=$(running "$root/$id.pid"); then
    stop "$id" "$pid"
    echo "server $id: pid $pid stopped"
  else
    rm -f -- "$root/$id.pid"
    echo "server $id: was not running"
  fi
}

status() {
  local id port address pid code state up votes keys down=no notes=()
  open_root
  need_server
  clear_environment
  # Not while somebody starts or stops, who does so himself.
  if [ -w "$root/.scripts.lock" ] && exec 9>>"$root/.scripts.lock" && flock -n 9; then bound_logs; fi
  exec 9>&-
  printf '%-6s  %-5s  %-21s  %-8s  %-4s  %-5s  %s\n' server port HTTP pid up votes keys
  while read -r id port address; do
    pid=$(running "$root/$id.pid") || pid=-
    probe "$port"
    up=yes votes=no keys=-
    case $code in
      0 | 4) votes=yes ;;
      3) case $state in *"does not vote yet"*) ;; *) votes=yes ;; esac ;;
      *)
        up=no votes=- down=yes
        if [ "$pid" = - ]; then notes+=("server $id: does not run; its last line: $(last_line "$id")"); else notes+=("server $id: runs, and does not answer"); fi ;;
    esac
    [[ ! $state =~ ([0-9]+)" keys" ]] || keys=${BASH_REMATCH[1]}
    case $code in 3 | 4) notes+=("$state") ;; esac
    printf '%-6s  %-5s  %-21s  %-8s  %-4s  %-5s  %s\n' "$id" "$port" "$address" "$pid" "$up" "$votes" "$keys"
  done <<<"$members"
  [ ${#notes[@]} -eq 0 ] || printf '%s\n' "${notes[@]}"
  [ "$down" = no ]
}

logs() { # PORT
  local id port address one
  open_root
  one=$(member_on "$1")
  read -r id port address <<<"$one"
  [ -e "$root/$id.log" ] || die "server $id has no log yet"
  if [ "$follow" = yes ]; then exec tail -n 100 -F -- "$root/$id.log"; fi
  tail -n 100 -- "$root/$id.log"
}

# ── ──

parse "$@"
set -- ${words[@]+"${words[@]}"}
command=${1:-}
case $command in
  stop | logs)
    [ $# -eq 2 ] || refuse "$command needs the port of one server; see --help"
    if [ "$1 $2" = "stop all" ]; then exec "$here/terminate_servers.sh" --data "$root"; fi
    port=$(decimal "$2")
    if [ "$command" = stop ]; then stop_one "$port"; else logs "$port"; fi ;;
  status)
    [ $# -eq 1 ] || refuse "status takes no port; see --help"
    status ;;
  *)
    [ $# -le 1 ] || refuse "one port at most; see --help"
    [ $# -eq 0 ] || command=$(decimal "$command")
    start "$command" ;;
esac
