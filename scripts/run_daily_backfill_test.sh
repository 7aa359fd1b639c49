#!/usr/bin/env bash
# Tries the daily backfill and posts the outcome to Slack, even if it ends early.
#
#   scripts/run_daily_backfill_test.sh [DATE] [ENV]
#
# DATE is the day to rehearse (default: yesterday, UTC); ENV is the environment of the rehearsal, local, staging or a
# file (default: staging). Where ENV also names settings, `backfill-assets doctor` tries them first (local is not
# tried). SLACK_WEBHOOK_URL is the address for the outcome; without it nothing is posted. REHEARSE_OPTIONS are those of
# `backfill-assets rehearse` (default: --quick). Log and reports are kept in LOG_DIR (default: ./rehearsals). The exit
# code is 0 if all promises were kept.
set -euo pipefail

case ${1:-} in -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;; esac
day=${1:-$(date -u -d yesterday +%F 2>/dev/null || date -u -v-1d +%F)}
environment=${2:-staging}
folder=${LOG_DIR:-rehearsals}/$day-$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$folder"
log=$folder/rehearsal.log
step="starting"

# The text as the inside of a JSON string, with what Slack would read as markup escaped.
quoted() {
    sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/[[:cntrl:]]/ /g' |
        sed -e ':a' -e 'N' -e '$!ba' -e 's/\n/\\n/g'
}

post() {
    [[ -n ${SLACK_WEBHOOK_URL:-} ]] || return 0
    command -v curl >/dev/null || { echo "nothing is posted: install curl" >&2; return 0; }
    # The address is a secret: it is in no argument that a list of processes shows.
    printf 'url = "%s"\n' "$SLACK_WEBHOOK_URL" | curl --config - --silent --show-error --max-time 30 --fail \
        --header 'Content-Type: application/json' --data "{\"text\": \"$(printf '%s' "$1" | quoted)\"}" \
        >/dev/null 2>>"$log" || echo "Slack did not take the outcome; see $log" >&2
}

finish() {
    local code=$?
    trap - EXIT
    # The log is whole when the process that writes it has ended.
    if [[ -n ${writer:-} ]]; then
        exec >&3 2>&3
        wait "$writer" || true
    fi
    if [[ $code -eq 0 ]]; then
        post "Rehearsal of $day ($environment): all promises kept. $(tail -n 1 "$log")"
    else
        post "Rehearsal of $day ($environment) failed while $step (exit code $code):
$(tail -n 15 "$log" | cut -c 1-300)"
    fi
    echo "Log: $log"
    exit "$code"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

exec 3>&1
exec > >(tee -a "$log") 2>&1
writer=$!
echo "$(date -u +%FT%TZ) rehearsal of $day, environment $environment"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ -x $root/.venv/bin/backfill-assets ]] && PATH=$root/.venv/bin:$PATH
step="looking for backfill-assets"
command -v backfill-assets >/dev/null || { echo "backfill-assets is not installed: run make lint, or pip install"; exit 1; }
if [[ $environment != local && ! -f $environment ]]; then
    step="trying the environment with doctor"
    BACKFILL_ENV=$environment backfill-assets doctor
fi
step="rehearsing"
read -r -a options <<<"${REHEARSE_OPTIONS:---quick}"
backfill-assets rehearse --date "$day" --env "$environment" --report-dir "$folder" \
    --history "${LOG_DIR:-rehearsals}/history.jsonl" "${options[@]}"
