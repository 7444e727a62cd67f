#!/bin/bash
# Usage: complete_sqlite.sh ROOT AGENT TASK MESSAGE
#
# The peer that keeps its tasks in a database (import_sqlite.sh fills it): one
# sqlite3 process commits task, progress, completion, change and checkpoint in
# one durable transaction, and exports the same three files that ours leaves
# for every tool that reads them: outbox, progress, completion record. The
# database is the truth, so there is no backup and no read-back. The locks
# keep an older export from landing last.
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
progress=.sprint/progress.json
record=postbox/$agent/completed/${task}_completion.json
tmp=.tmp.$$
changed=("$outbox" "$record")

exec 8>>"postbox/$agent/.outbox.json.lock"
flock -w 30 8
if [[ -e $progress ]]; then
  exec 9>>.sprint/.progress.json.lock
  flock -w 30 9
  changed+=("$progress")
fi
trap 'rm -f -- "${changed[@]/%/$tmp}"' EXIT

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
UPDATE progress SET entry = json_set(entry, '\$.status', 'completed', '\$.completed_at', '$now')
  WHERE task_id = '$task';
UPDATE sprint SET head = json_set(head, '\$.completed', head ->> '\$.completed' + 1, '\$.last_updated', '$now');
INSERT INTO changes VALUES (NULL, '$agent', '$task', '$now', $quoted);
INSERT INTO checkpoints VALUES ('$agent', '$task', '$now', 'completed');
COMMIT;
SELECT writefile('$outbox$tmp', json_set(head, '\$.tasks',
    (SELECT json_group_array(json(task)) FROM
      (SELECT task FROM tasks WHERE tasks.agent = outboxes.agent ORDER BY position))
  ) || char(10))
  FROM outboxes WHERE agent = '$agent';
SELECT writefile('$progress$tmp', json_set(head, '\$.tasks', json(
    CASE form WHEN 'object' THEN
      (SELECT json_group_object(task_id, json(entry)) FROM (SELECT * FROM progress ORDER BY position))
    ELSE
      (SELECT json_group_array(json(entry)) FROM (SELECT * FROM progress ORDER BY position))
    END)) || char(10))
  FROM sprint;
SELECT writefile('$record$tmp', json_object('task_id', task_id, 'agent_id', agent, 'status', 'completed',
    'completed_at', completed_at, 'completion_message', message) || char(10))
  FROM completions WHERE agent = '$agent' AND task_id = '$task';
SQL

sync -- "${changed[@]/%/$tmp}"
for file in "${changed[@]}"; do
  mv -f -- "$file$tmp" "$file"
done
sync -- "${changed[@]%/*}"
trap - EXIT
echo "completed $agent/$task"
