#!/usr/bin/env bash
# Fuzzing guided by coverage: scripts/fuzz.sh [SECONDS [TARGET...]], by default 60 seconds for each target of chord::fuzz.
# Of what libFuzzer finds, the smallest set that reaches as much becomes tests/corpora/TARGET.txt, an input a line in base64.
# An input that breaks something is left in target/fuzz/artifacts; the target's program, in the build folder that is printed,
# replays it. Needs a C++ compiler; installs cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(frames messages log key_file console records forged)
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked --quiet

# libFuzzer's instrumentation is an unstable flag of a compiler that has it all the same.
export RUSTC_BOOTSTRAP=1
work=target/fuzz
cargo fuzz build --fuzz-dir tests/libfuzzer --target-dir "$work" --sanitizer none
programs=$work/$(rustc -vV | sed -n 's/^host: //p')/release
for target in "${targets[@]}"; do
  corpus=$work/corpus/$target kept=tests/corpora/$target.txt
  mkdir -p "$corpus" "$work/artifacts/$target"
  number=0
  [ ! -f "$kept" ] || while read -r line; do
    base64 -d <<<"$line" >"$corpus/kept-$number"
    number=$((number + 1))
  done <"$kept"
  echo "== $target, $seconds s ($programs/$target)"
  "$programs/$target" "$corpus" -max_total_time="$seconds" -rss_limit_mb=1024 -max_len=4096 -timeout=10 \
    -print_final_stats=1 -artifact_prefix="$work/artifacts/$target/" 2>"$work/$target.log" ||
    { tail -40 "$work/$target.log"; echo "$target: a finding, see $work/artifacts/$target" >&2; exit 1; }
  grep -E "cov:" "$work/$target.log" | tail -1
  grep -E "number_of_executed_units|peak_rss_mb" "$work/$target.log"
  merged=$(mktemp -d)
  "$programs/$target" "$merged" "$corpus" -set_cover_merge=1 -use_counters=0 2>>"$work/$target.log"
  for input in "$merged"/*; do base64 -w0 "$input"; echo; done | LC_ALL=C sort >"$kept"
  rm -r "$merged"
  echo "corpus: $(wc -l <"$kept") inputs"
done
