# shellcheck shell=bash disable=SC2154
# Waits until started servers are ready, and says meanwhile what they wait for; for server.sh.
#
# Ready: it votes and, where the whole cluster was started, sees all others vote. A server alone is ready when it votes:
# whom it sees is up to the others. Three things end the wait early: a process that has ended, a state of which no waiting
# helps (two disks of one range lost), and the user; the servers run on in each case.

# How many seconds a state must last until it is told, and until waiting is given up.
tell_after=3 give_up_after=8

declare -A said=() seen=() since=() told=() told_at=() ready=()

# Asks a server how it is: sets $code (0 votes and sees all, 4 votes, 3 does not, else no answer) and $state.
probe() { # port
  code=0
  state=$("$server" --probe "127.0.0.1:$1" 2>/dev/null) || code=$?
}

# What a server that does not vote says of itself, short enough for one line while it is rebuilt.
why_not() { # state
  local why=${1#*does not vote yet: }
  why=${why#not voting: }
  case $why in
    "being rebuilt"*) why=${why%%;*} && echo "${why/ from the other replicas/}" ;;
    *) echo "$why" ;;
  esac
}

# The command that starts a server of this root without what it has lost.
accept_loss_command() { # port
  local command
  printf -v command '%q ' "$0" --accept-loss "$1" --data "$root"
  echo "${command% }"
}

# A line while a server is rebuilt: over the last one on a terminal, else one in ten seconds.
tell_progress() { # id text
  if [ -t 1 ]; then
    printf '\r\033[K%s' "server $1 votes not yet: $2"
    over=yes
  elif [ $((SECONDS - ${told_at[$1]:--10})) -ge 10 ]; then
    echo "server $1 votes not yet: $2"
    told_at[$1]=$SECONDS
  fi
}

say() {
  [ "${over:-no}" = no ] || printf '\r\033[K'
  over=no
  echo "$*"
}

# Ends this script if one of the processes has ended, with its last line.
check_processes() {
  local one id port http ended=""
  for one in "$@"; do
    read -r id port http <<<"$one"
    if ! running "$root/$id.pid" >/dev/null; then
      say "server $id (port $port) has ended: $(last_line "$id")" >&2
      ended="$ended $root/$id.log"
    fi
  done
  [ -z "$ended" ] || die "not all servers run; see$ended"
}

# Looks at one server once; true if it is ready.
look_at() { # id port
  local id=$1 port=$2 why sight
  probe "$port"
  said[$id]=$code$state
  # How many keys one that votes has does not count as news.
  sight=$code
  [ "$code" -ne 3 ] || sight=$state
  if [ "${seen[$id]:-}" != "$sight" ]; then
    seen[$id]=$sight since[$id]=$SECONDS changed=$SECONDS
  fi
  case $code in
    0) return 0 ;;
    4) [ -n "$only" ] && return 0 || return 1 ;;
    3) ;;
    *)
      moving=yes
      return 1 ;;
  esac
  case $state in *"does not vote yet"*) ;; *) return 0 ;; esac
  why=$(why_not "$state")
  case $why in
    "being rebuilt"*)
      # As long as it moves, it may take its time.
      [ "${since[$id]}" -ne "$SECONDS" ] || deadline=$((SECONDS + patience))
      moving=yes
      tell_progress "$id" "$why" ;;
    *needs*)
      # With --accept-loss it waits a while for more answers, and goes on.
      if [ "$accept" = yes ]; then
        moving=yes
        return 1
      fi
      stuck="$stuck $id"
      if [ $((SECONDS - since[$id])) -ge "$tell_after" ] && [ "${told[$id]:-}" != "$why" ]; then
        told[$id]=$why
        say "server $id (port $port) votes not yet: $why. --accept-loss is given so: $(accept_loss_command "$port")" >&2
      fi ;;
  esac
  return 1
}

# Waits for those servers ("id port http" each), and says when each is ready, in their order.
await() {
  local queue=("$@") one id port http code state stuck moving over=no round=-1 changed=$SECONDS
  local patience=${CHORD_START_SECONDS:-60}
  local deadline=$((SECONDS + patience))
  while [ ${#queue[@]} -gt 0 ]; do
    check_processes "${queue[@]}"
    stuck="" moving=no
    for one in "${queue[@]}"; do
      read -r id port http <<<"$one"
      [ -z "${ready[$id]:-}" ] || continue
      if look_at "$id" "$port"; then
        ready[$id]=yes
      # Each look is a process: those behind the first that is not ready get one a second.
      elif [ "$round" -eq "$SECONDS" ]; then
        moving=yes
        break
      fi
    done
    round=$SECONDS
    while [ ${#queue[@]} -gt 0 ]; do
      read -r id port http <<<"${queue[0]}"
      [ -n "${ready[$id]:-}" ] || break
      announce "$id" "$port" "$http"
      queue=("${queue[@]:1}")
    done
    [ ${#queue[@]} -gt 0 ] || break
    give_up_or_go_on
    sleep 0.1
  done
}

announce() { # id port http
  local pid address=""
  pid=$(running "$root/$1.pid" || echo gone)
  [ "$3" = - ] || address=", http://$3"
  say "server $1: pid $pid, port $2$address${new[$1]:+, ${new[$1]}}"
  case ${said[$1]} in 3*) say "  it says: ${said[$1]#3}" ;; esac
}

# Ends the wait where it is vain.
give_up_or_go_on() {
  local lasting=$((SECONDS - changed))
  if [ -n "$stuck" ] && [ "$moving" = no ]; then
    # A server that was started alone runs, and the others may come later.
    if [ -n "$only" ] && [ "$lasting" -ge "$tell_after" ]; then
      queue=()
      return
    fi
    [ "$lasting" -lt "$give_up_after" ] || die "not all servers vote, and waiting will not help (server$stuck, see above); all of them run"
  fi
  if [ "$SECONDS" -ge "$deadline" ]; then
    read -r id port http <<<"${queue[0]}"
    die "server $id is not ready in time${said[$id]:+ (${said[$id]#?})}; its log is $root/$id.log"
  fi
}
