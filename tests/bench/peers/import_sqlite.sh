#!/bin/bash
# Usage: import_sqlite.sh ROOT AGENT...
#
# Makes ROOT/data/tasks.db from the outboxes of the agents and the progress
# file: the state complete_sqlite.sh starts from.
set -euo pipefail

cd -- "$1"
shift
rm -f -- data/tasks.db data/tasks.db-wal data/tasks.db-shm
sqlite3 -bail data/tasks.db >/dev/null <<'SQL'
PRAGMA journal_mode = WAL;
CREATE TABLE outboxes (agent TEXT PRIMARY KEY, head TEXT NOT NULL);
CREATE TABLE tasks (
  agent TEXT NOT NULL, position INTEGER NOT NULL, task_id TEXT NOT NULL,
  status TEXT, task TEXT NOT NULL CHECK (json_valid(task)),
  PRIMARY KEY (agent, position), UNIQUE (agent, task_id)
);
CREATE TABLE completions (
  agent TEXT NOT NULL, task_id TEXT NOT NULL, completed_at TEXT NOT NULL,
  message TEXT NOT NULL, PRIMARY KEY (agent, task_id)
);
CREATE TABLE progress (task_id TEXT PRIMARY KEY, position INTEGER NOT NULL, entry TEXT NOT NULL);
CREATE TABLE sprint (head TEXT NOT NULL, form TEXT NOT NULL);
CREATE TABLE changes (
  seq INTEGER PRIMARY KEY, agent TEXT, task_id TEXT, at TEXT, message TEXT
);
CREATE TABLE checkpoints (
  agent TEXT, task_id TEXT, at TEXT, state TEXT, PRIMARY KEY (agent, task_id, at)
);
SQL

for agent; do
  sqlite3 -bail data/tasks.db <<SQL
CREATE TEMP TABLE file AS SELECT readfile('postbox/$agent/outbox.json') AS json;
BEGIN IMMEDIATE;
INSERT INTO outboxes SELECT '$agent', json_remove(json, '$.tasks') FROM file;
INSERT INTO tasks
  SELECT '$agent', key, value ->> '$.task_id', value ->> '$.status', value
  FROM json_each((SELECT json FROM file), '$.tasks');
COMMIT;
SQL
done

if [[ -e .sprint/progress.json ]]; then
  sqlite3 -bail data/tasks.db <<'SQL'
CREATE TEMP TABLE file AS SELECT readfile('.sprint/progress.json') AS json;
BEGIN IMMEDIATE;
INSERT INTO sprint SELECT json_remove(json, '$.tasks'), json_type(json, '$.tasks') FROM file;
INSERT INTO progress
  SELECT iif(typeof(key) = 'text', key, value ->> '$.id'), row_number() OVER (), value
  FROM json_each((SELECT json FROM file), '$.tasks');
COMMIT;
SQL
fi
