#!/bin/bash
# Usage: complete_jq.sh ROOT AGENT TASK MESSAGE
#
# The peer of bin/complete_task_with_recovery.sh: the same completion as a
# careful person writes it with flock, jq, sync and mv. BENCH_JQ names the jq.
#
# It gives what such a script can give: locks, validation, a backup, data
# synced before each rename, folders after it, and a read-back. It cannot give
# one commit: a crash between two renames leaves half a completion. Nor does it
# keep a file's mode, or its spacing. What it leaves out makes it faster.
# shellcheck disable=SC2016 # the variables in quotes are jq's
set -euo pipefail

root=$1 agent=$2 task=$3 message=$4
jq=${BENCH_JQ:-jq}
id='^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'
if [[ ! $agent =~ $id || ! $task =~ $id ]]; then
  echo "complete_jq.sh: bad id" >&2
  exit 64
fi

cd -- "$root"
TZ=UTC printf -v now '%(%Y-%m-%dT%H:%M:%SZ)T' -1
outbox=postbox/$agent/outbox.json
progress=.sprint/progress.json
record=postbox/$agent/completed/${task}_completion.json
backup=$outbox.backup_$task
log=data/changes/log.jsonl
checkpoint=data/checkpoints/${task}_checkpoint.json
changed=("$outbox" "$record")
tmp=.tmp.$$

exec 8>>"postbox/$agent/.outbox.json.lock"
flock -w 30 8
trap 'rm -f -- "${changed[@]/%/$tmp}"' EXIT

"$jq" -s --arg task "$task" --arg message "$message" --arg now "$now" '
  if length == 1 then .[0] else error("not one document") end
  | [.tasks[] | select(.task_id == $task) | .status] as $found
  | if $found == [] then error("no such task")
    elif $found == ["completed"] then error("already completed")
    elif ($found | length) > 1 then error("task listed twice")
    else . end
  | (.tasks[] | select(.task_id == $task)) +=
    {status: "completed", completed_at: $now, completion_message: $message}
' "$outbox" >"$outbox$tmp"

# All agents share this one, so its lock is taken as late as possible.
if [[ -e $progress ]]; then
  exec 9>>.sprint/.progress.json.lock
  flock -w 30 9
  changed+=("$progress")
  "$jq" -s --arg task "$task" --arg now "$now" '
    {status: "completed", completed_at: $now} as $done
    | if length == 1 then .[0] else error("not one document") end
    | if (.tasks | type) == "object" then .tasks[$task] += $done
      else (.tasks[] | select(.id == $task)) += $done end
    | .completed += 1
    | .last_updated = $now
  ' "$progress" >"$progress$tmp"
fi

# The ids need no quoting; the message is quoted once for all that name it.
quoted=$("$jq" -n --arg message "$message" '$message')
printf '{
  "task_id": "%s",
  "agent_id": "%s",
  "status": "completed",
  "completed_at": "%s",
  "completion_message": %s
}\n' "$task" "$agent" "$now" "$quoted" >"$record$tmp"

cp -- "$outbox" "$backup"
sync -- "$backup" "${changed[@]/%/$tmp}"
sums=$(cksum -- "${changed[@]/%/$tmp}")
for file in "${changed[@]}"; do
  mv -f -- "$file$tmp" "$file"
done
if [[ $(cksum -- "${changed[@]}") != "${sums//"$tmp"/}" ]]; then
  echo "complete_jq.sh: read back something else, see $backup" >&2
  exit 1
fi

printf '{"task_id": "%s", "agent_id": "%s", "status": "completed", "timestamp": "%s", "message": %s}\n' \
  "$task" "$agent" "$now" "$quoted" >>"$log"
printf '{"task_id": "%s", "timestamp": "%s", "state": "completed", "data": {"message": %s}}\n' \
  "$task" "$now" "$quoted" >"$checkpoint"
sync -- "${changed[@]%/*}" "$log" "$checkpoint" "${checkpoint%/*}"
rm -f -- "$backup"
trap - EXIT
echo "completed $agent/$task"
