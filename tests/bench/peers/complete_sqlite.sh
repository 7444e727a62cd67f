#!/usr/bin/env bash
# Usage: complete_sqlite.sh ROOT AGENT TASK MESSAGE
#
# The peer that keeps its tasks in a database (import_sqlite.sh fills it): one
# sqlite3 process commits task, progress, completion, change and checkpoint in
# one durable transaction, and exports the agent's outbox.json for every tool
# that reads that. The agent's lock keeps an older export from landing last.
set -euo pipefail

root=$1 agent=$2 task=$3 message=$4
id='^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'
if [[ ! $agent =~ $id || ! $task =~ $id ]]; then
  echo "complete_sqlite.sh: bad id" >&2
  exit 64
fi

cd -- "$root"
TZ=UTC printf -v now '%(%Y-%m-%dT%H:%M:%SZ)T' -1
quoted="'${message//"'"/"''"}'"
outbox=postbox/$agent/outbox.json
tmp=$outbox.tmp.$$

exec 8>>"postbox/$agent/.outbox.json.lock"
flock -w 30 8
trap 'rm -f -- "$tmp"' EXIT

sqlite3 -bail data/tasks.db >/dev/null <<SQL
.timeout 30000
.dbconfig no_ckpt_on_close on
PRAGMA synchronous = FULL;
BEGIN IMMEDIATE;
CREATE TEMP TABLE found (tasks CONSTRAINT "one open task of that name" CHECK (tasks = 1));
UPDATE tasks
  SET status = 'completed', task = json_set(task, '\$.status', 'completed',
    '\$.completed_at', '$now', '\$.completion_message', $quoted)
  WHERE agent = '$agent' AND task_id = '$task' AND status IS NOT 'completed';
INSERT INTO found VALUES (changes());
INSERT INTO completions VALUES ('$agent', '$task', '$now', $quoted);
INSERT INTO progress VALUES ('$task', 'completed', '$now')
  ON CONFLICT DO UPDATE SET status = 'completed', completed_at = '$now';
UPDATE sprint SET completed = completed + 1, last_updated = '$now';
INSERT INTO changes VALUES (NULL, '$agent', '$task', '$now', $quoted);
INSERT INTO checkpoints VALUES ('$agent', '$task', '$now', 'completed');
COMMIT;
SELECT writefile('$tmp', json_set(head, '\$.tasks',
    (SELECT json_group_array(json(task)) FROM
      (SELECT task FROM tasks WHERE tasks.agent = outboxes.agent ORDER BY position))
  ) || char(10))
  FROM outboxes WHERE agent = '$agent';
SQL

sync -- "$tmp"
mv -f -- "$tmp" "$outbox"
sync -- "${outbox%/*}"
trap - EXIT
echo "completed $agent/$task"
