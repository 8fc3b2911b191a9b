# Shared by server.sh and terminate_servers.sh: processes that are surely ours.
#
# A pid file holds the pid and the process's start time (field 22 of /proc/PID/stat, in ticks since boot), so that a
# number which the system has given to another process meanwhile is never taken for a server.

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

is_number() {
  [[ $1 =~ ^[0-9]{1,6}$ ]]
}

# Start time of a pid; nothing if there is no such process.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name in parentheses may hold anything; what follows the last one is fields 3 and up.
  set -- ${stat##*) }
  [ "$1" != Z ] || return 1
  echo "${20}"
}

# What is written into a pid file.
record() {
  echo "$1 $(start_time "$1" || echo gone)"
}

# The pid in a pid file, if that very process is running.
running() {
  local pid time
  [ -r "$1" ] && read -r pid time <"$1" || return 1
  [[ $pid =~ ^[0-9]+$ ]] && [ "$(start_time "$pid")" = "$time" ] || return 1
  echo "$pid"
}

# Stops a server by its id and pid, which `running` has given; needs $root.
stop() {
  local id=$1 pid=$2 tries=100
  kill -TERM "$pid" 2>/dev/null || true
  while running "$root/$id.pid" >/dev/null; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
      echo "server $id: pid $pid has not ended within 10 s, so it is killed" >&2
      kill -KILL "$pid" 2>/dev/null || true
    fi
    [ "$tries" -gt -50 ] || die "server $id: pid $pid cannot be ended"
    sleep 0.1
  done
  rm -f "$root/$id.pid"
}

# "id port" of each server in a cluster file of one server a line, as server.sh writes it.
members() {
  sed -n 's/.*"id": *\([0-9]*\), *"address": *"[^"]*:\([0-9]*\)".*/\1 \2/p' "$1"
}
