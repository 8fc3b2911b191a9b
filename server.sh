#!/usr/bin/env bash
# Starts a cluster of chord-server on this machine, or one server of it. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/scripts/processes.sh"

usage() {
  cat <<'TEXT'
Usage: ./server.sh [options]         start all servers of the cluster (four on ports 9000-9003)
       ./server.sh PORT [options]    (re)start the server on that port

Options:
  --nodes N           servers                                         [4]
  --rep K             copies of each key                              [3, or N if less]
  --partitioner P     byte-ordered or hashed                          [byte-ordered]
  --placement P       ring or groups                                  [ring]
  --port-base PORT    port of server 0                                [9000]
  --http-base PORT    HTTP port of server 0, or off                   [8000]
  --data DIR          data root                                       [./data]
  --sync S            always, or an interval like 100ms               [always]

The cluster is written to DIR/cluster.json the first time, and whenever one of the first six options is given;
otherwise the file that is there counts. Programs are built first, unless CHORD_BIN names a folder that has them.
TEXT
}

nodes=4 rep="" partitioner=byte-ordered placement=ring base=9000 http=8000 root=./data sync="" only="" shaped=no
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --nodes | --rep | --partitioner | --placement | --port-base | --http-base | --data | --sync)
      [ $# -ge 2 ] || die "$1 needs a value; see --help"
      case $1 in
        --nodes) nodes=$2 shaped=yes ;;
        --rep) rep=$2 shaped=yes ;;
        --partitioner) partitioner=$2 shaped=yes ;;
        --placement) placement=$2 shaped=yes ;;
        --port-base) base=$2 shaped=yes ;;
        --http-base) http=$2 shaped=yes ;;
        --data) root=$2 ;;
        --sync) sync=$2 ;;
      esac
      shift 2 ;;
    -*) die "unknown option $1; see --help" ;;
    *)
      [ -z "$only" ] || die "one port at most; see --help"
      only=$1
      shift ;;
  esac
done
[ "$http" != off ] || http=""
for number in "$nodes" "${rep:-1}" "$base" "${http:-1}" "${only:-1}"; do
  is_number "$number" || die "'$number' is no number; see --help"
done
[ "$nodes" -ge 1 ] || die "--nodes is 0; choose at least 1"
[ -n "$rep" ] || rep=$((nodes < 3 ? nodes : 3))

if [ -n "${CHORD_BIN:-}" ]; then
  server=$CHORD_BIN/chord-server
  [ -x "$server" ] || die "CHORD_BIN has no chord-server; build it, or unset CHORD_BIN"
else
  (cd "$here" && cargo build --release --quiet) || die "the build has failed; see above"
  server=${CARGO_TARGET_DIR:-$here/target}/release/chord-server
fi
# The environment could name another cluster than the file.
for name in $(compgen -e | grep '^CHORD_' || true); do
  case $name in CHORD_LOG | CHORD_MEMORY | CHORD_SECRET_FILE) ;; *) unset "$name" ;; esac
done

mkdir -p "$root"
chmod 700 "$root"
root=$(cd "$root" && pwd)
file=$root/cluster.json

# One start (or stop) at a time for one data root.
exec 9>"$root/.scripts.lock"
flock -w 60 9 || die "another start or stop is at work in $root; try again"

if [ ! -e "$file" ] || [ "$shaped" = yes ]; then
  {
    printf '{"name": "demo", "replicas": %s, "partitioner": "%s", "placement": "%s", "servers": [' \
      "$rep" "$partitioner" "$placement"
    demo=("" 064 128 192)
    for ((id = 0; id < nodes; id++)); do
      [ "$id" -eq 0 ] || printf ','
      printf '\n  {"id": %s, "address": "127.0.0.1:%s"' "$id" $((base + id))
      # Four servers get the ranges that suit keys of three decimal digits.
      [ "$nodes" -ne 4 ] || [ "$partitioner" != byte-ordered ] || printf ', "start": "%s"' "${demo[$id]}"
      [ -z "$http" ] || printf ', "http": "127.0.0.1:%s"' $((http + id))
      printf '}'
    done
    printf '\n]}\n'
  } >"$file.new"
  "$server" "$base" --cluster "$file.new" --check || { rm -f "$file.new"; die "nothing was started"; }
  if [ -e "$file" ] && ! cmp -s "$file" "$file.new"; then
    for pid_file in "$root"/*.pid; do
      if [ -e "$pid_file" ] && running "$pid_file" >/dev/null; then
        rm -f "$file.new"
        die "$root has another cluster, and it is running; stop it first (terminate_servers.sh), or use another --data"
      fi
    done
    if compgen -G "$root/[0-9]*/identity.json" >/dev/null; then
      rm -f "$file.new"
      die "$root holds the data of another cluster; clean it (terminate_servers.sh --clean), or use another --data"
    fi
  fi
  mv "$file.new" "$file"
fi

members=$(members "$file")
[ -n "$members" ] || die "$file lists no servers as server.sh writes them; start chord-server by hand"
replicas=$(sed -n 's/.*"replicas": *\([0-9]*\).*/\1/p' "$file" | head -n 1)

# Ranges of one copy occur with one replica, and with groups that do not come out even.
first=no
if ! compgen -G "$root/[0-9]*/identity.json" >/dev/null && { [ "$replicas" = 1 ] || grep -q '"placement": "groups"' "$file"; }; then
  first=yes
fi

start() { # id port
  local id=$1 port=$2 flags=(--cluster "$file" --data "$root/$1")
  [ -z "$sync" ] || flags+=(--sync "$sync")
  # Where a range has one copy nobody can be asked what it may have lost; on the cluster's first start, nothing.
  [ "$first" = no ] || flags+=(--accept-loss)
  printf '%s\n' "--- started" >>"$root/$id.log"
  # A session of its own, so that a closed terminal does not end it; without the lock of this script.
  setsid nohup "$server" "$port" "${flags[@]}" </dev/null >>"$root/$id.log" 2>&1 9>&- &
  local pid=$!
  disown "$pid"
  record "$pid" >"$root/$id.pid"
}

started=""
while read -r id port; do
  [ -z "$only" ] || [ "$only" = "$port" ] || continue
  if pid=$(running "$root/$id.pid"); then
    if [ -z "$only" ]; then
      echo "server $id: pid $pid, port $port, already running"
      continue
    fi
    stop "$id" "$pid"
  fi
  start "$id" "$port"
  started="$started $id:$port"
done <<<"$members"
if [ -z "$started" ]; then
  [ -z "$only" ] || die "no server has port $only in $file; its ports are $(cut -d' ' -f2 <<<"$members" | xargs)"
  exit 0
fi

# Ready: it answers. When the whole cluster was started here, also: it votes, and sees all others vote.
tries=$((${CHORD_START_SECONDS:-60} * 10))
for one in $started; do
  id=${one%%:*} port=${one##*:}
  while :; do
    pid=$(running "$root/$id.pid") || {
      tail -n 5 "$root/$id.log" >&2
      rm -f "$root/$id.pid"
      die "server $id has not started; its log is $root/$id.log"
    }
    code=0
    said=$("$server" --probe "127.0.0.1:$port" 2>/dev/null) || code=$?
    [ "$code" -ne 0 ] || break
    # Alone, a server that answers is enough: whether it votes, and whom it sees, is up to the others.
    if [ "$code" -ge 3 ] && [ -n "$only" ]; then break; fi
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || die "server $id is not ready in time${said:+ ($said)}; its log is $root/$id.log"
    sleep 0.1
  done
  echo "server $id: pid $pid, port $port"
done
