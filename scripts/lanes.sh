# shellcheck shell=bash
# Several things at once, each with its output in a file, where most of them wait for something else than the processor. Sourced, not run.

lanes=()

# lane LOG COMMAND...: in the background, as a process group of its own, so that all of it ends when this is interrupted.
lane() {
    local log=$1
    shift
    : >"$log"
    set -m
    "$@" </dev/null >>"$log" 2>&1 &
    set +m
    lanes+=("$! $log")
}

# end_of_lanes: shows what they say, one after another, until they have ended. Fails when one has failed.
end_of_lanes() {
    local it failed=()
    for it in "${lanes[@]}"; do
        # Waited for, so that a signal does not wait for it.
        tail --follow --lines=+1 --sleep-interval=0.2 --pid="${it%% *}" "${it#* }" &
        wait "$!"
        wait "${it%% *}" || failed+=("${it#* }")
    done
    lanes=()
    [ "${#failed[@]}" -eq 0 ] || { say "== FAILED, as is said in: ${failed[*]}"; return 1; }
}

# shellcheck disable=SC2317,SC2329  # called by a trap
kill_lanes() {
    local it
    for it in "${lanes[@]}"; do kill -- "-${it%% *}" 2>/dev/null || true; done
}
trap kill_lanes EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
