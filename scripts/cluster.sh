# shellcheck shell=bash disable=SC2154
# The cluster file and the logs of a data root, for server.sh; needs $root and $file, and to draw a cluster its options.

# What the options say, one server a line.
cluster_text() {
  local id demo=("" 064 128 192)
  printf '{"name": "demo", "replicas": %s, "partitioner": "%s", "placement": "%s", "servers": [' \
    "$rep" "$partitioner" "$placement"
  for ((id = 0; id < nodes; id++)); do
    [ "$id" -eq 0 ] || printf ','
    printf '\n  {"id": %s, "address": "127.0.0.1:%s"' "$id" $((base + id))
    # Four servers get the ranges that suit keys of three decimal digits.
    [ "$nodes" -ne 4 ] || [ "$partitioner" != byte-ordered ] || printf ', "start": "%s"' "${demo[$id]}"
    [ -z "$http" ] || printf ', "http": "127.0.0.1:%s"' $((http + id))
    printf '}'
  done
  printf '\n]}\n'
}

# Writes the cluster file, unless servers run, or data lies there, of another cluster.
write_cluster() {
  local new=$file.new pid_file
  cluster_text >"$new"
  "$server" "$base" --cluster "$new" --check || { rm -f -- "$new"; refuse "nothing was started"; }
  if [ -e "$file" ] && ! cmp -s "$file" "$new"; then
    for pid_file in "$root"/*.pid; do
      if [ -e "$pid_file" ] && running "$pid_file" >/dev/null; then
        rm -f -- "$new"
        die "$root has another cluster, and it is running; stop it first (terminate_servers.sh), or use another --data"
      fi
    done
    if compgen -G "$root/[0-9]*/identity.json" >/dev/null; then
      rm -f -- "$new"
      die "$root holds the data of another cluster; clean it (terminate_servers.sh --clean), or use another --data"
    fi
  fi
  mv -- "$new" "$file"
}

# Ranges of one copy occur with one replica, and with groups that do not come out even.
has_single_copies() {
  local replicas
  replicas=$(sed -n 's/.*"replicas": *\([0-9]*\).*/\1/p' "$file" | head -n 1)
  [ "$replicas" = 1 ] || grep -q '"placement": "groups"' "$file"
}

# The server on that port, as `members` gives it.
member_on() {
  local id port http
  while read -r id port http; do
    if [ "$port" = "$1" ]; then
      echo "$id $port $http"
      return
    fi
  done <<<"$members"
  refuse "no server has port $1 in $file; its ports are $(cut -d' ' -f2 <<<"$members" | xargs)"
}

log_limit=$((10 << 20))

# Moves what a long log holds to ID.log.1, also while its server writes: the server appends, so an emptied file stays good.
# A line written between the two commands is lost.
bound_log() {
  local log=$root/$1.log size
  size=$(stat -c %s -- "$log" 2>/dev/null) || return 0
  [ "$size" -gt "$log_limit" ] || return 0
  if cp -- "$log" "$log.1"; then
    : >"$log"
  else
    echo "$log is long, and could not be copied to $log.1" >&2
  fi
}

bound_logs() {
  local id rest
  # rest: port and http.
  # shellcheck disable=SC2034
  while read -r id rest; do bound_log "$id"; done <<<"$members"
}

# The last thing that a server has said since it was started.
last_line() {
  local line
  line=$(tail -n 1 -- "$root/$1.log" 2>/dev/null | tr -d '\000-\010\013-\037') || true
  case $line in "" | "--- started"*) echo "it has said nothing" ;; *) echo "$line" ;; esac
}
