# shellcheck shell=bash disable=SC2154
# Shared by server.sh and terminate_servers.sh: processes that are surely ours, and folders that are.
#
# A pid file holds the pid and the process's start time (field 22 of /proc/PID/stat, in ticks since boot), so that a
# number which the system has given to another process meanwhile is never taken for a server.
#
# A data root is a folder in which server.sh has left its lock file. Whatever has none is somebody else's.

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# The flags or the folder are wrong; nothing was done.
refuse() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# As a decimal, whatever zeros it begins with: the shell would take them for octal.
number() {
  [[ $1 =~ ^[0-9]{1,6}$ ]] || return 1
  echo $((10#$1))
}

is_number() {
  number "$1" >/dev/null
}

# The folder's full path. CDPATH would have `cd` speak.
full_path() {
  (CDPATH='' cd -- "$1" 2>/dev/null && pwd) || refuse "the folder $1 cannot be entered"
}

is_data_root() {
  [ -f "$1/.scripts.lock" ] && [ ! -L "$1/.scripts.lock" ]
}

# One start or stop at a time for one data root, until descriptor 9 is closed; needs $root.
lock() {
  [ -w "$root" ] || refuse "$(id -un) cannot write in $root; choose another folder with --data"
  { [ ! -e "$root/.scripts.lock" ] || [ -w "$root/.scripts.lock" ]; } || refuse "$root is the data root of another user"
  exec 9>>"$root/.scripts.lock"
  flock -w 60 9 || die "another start or stop is at work in $root; try again"
}

# Start time of a pid; nothing if there is no such process.
start_time() {
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name in parentheses may hold anything; what follows the last one is fields 3 and up.
  read -ra fields <<<"${stat##*) }"
  [ "${fields[0]}" != Z ] || return 1
  echo "${fields[19]}"
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
  rm -f -- "$root/$id.pid"
}

# "id port http" of each server in a cluster file of one server a line, as server.sh writes it; http is "-" if off.
members() {
  local line id='"id": *([0-9]+), *"address": *"[^"]*:([0-9]+)"' http='"http": *"([^"]+)"' start
  while IFS= read -r line || [ -n "$line" ]; do
    [[ $line =~ $id ]] || continue
    start="${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
    if [[ $line =~ $http ]]; then
      echo "$start ${BASH_REMATCH[1]}"
    else
      echo "$start -"
    fi
  done <"$1"
}
