#!/usr/bin/env bats

load test_helper

# An editor here is a command line that changes the file which is its last word.

edits_with() { # <editor> <arg>...; no terminal
  with EDITOR="$1" -- "$SUITE/bin/recovery" edit "${@:2}" </dev/null
}

assert_no_copies() {
  assert_equal "" "$(find "$TMPDIR" -mindepth 1)"
}

@test "what the editor leaves is committed exactly, and rollback takes it back to the byte" {
  remember_tree
  runs edits_with "sed -i 's/End to end/Front to back/'" CC
  assert_output_has "changed postbox/CC/outbox.json" "recovery rollback CC TASK-168B takes it back"
  assert_equal "Front to back tests" "$(task CC TASK-168B title)"
  runs recovery rollback CC TASK-168B
  assert_unchanged
  assert_no_copies
  assert_no_stray_files
}

@test "spacing and a missing final newline stay as the person left them" {
  runs edits_with "printf '%s' '{\"tasks\" : [ ]}' >" CC
  assert_equal '{"tasks" : [ ]}' "$(cat "$ROOT/postbox/CC/outbox.json")"
}

@test "a change of several tasks is taken back under the name outbox" {
  remember_tree
  runs edits_with "sed -i 's/tests/TESTS/'" CC
  assert_output_has "recovery rollback CC outbox takes it back"
  runs recovery rollback CC outbox
  assert_unchanged
}

@test "an outbox that was not changed is left alone, its bytes, times and all" {
  find "$ROOT" -type f -printf '%p %i %s %T@\n' >before
  runs edits_with true CC
  assert_output "postbox/CC/outbox.json was not changed"
  find "$ROOT" -type f -printf '%p %i %s %T@\n' | cmp - before
  rm before
  assert_no_copies
}

@test "the editor gets a private copy, and no lock is held while it runs" {
  # the editor completes another agent's and this very agent's task meanwhile
  runs edits_with "stat -c %a \"\$1\" >mode; '$SUITE/bin/recovery' complete CA TASK-168C >&2; sed -i s/End/Start/" CC
  assert_completed CA TASK-168C
  assert_equal "Start to end tests" "$(task CC TASK-168B title)"
  assert_equal 600 "$(cat mode)"
  rm mode
}

@test "VISUAL goes before EDITOR, and either may have options" {
  runs with VISUAL="sed -i -e s/End/Start/" -- edits_with "false" CC
  assert_equal "Start to end tests" "$(task CC TASK-168B title)"
}

@test "a text that won't do is refused without a terminal, with line and column, and kept in a file" {
  local text kept
  for text in '{"tasks": [' '{"tasks": [{"task_id": "A"}, {"task_id": "A"}]}' '[]' '{"tasks": 1}' '' \
    '{"tasks": []} {}' '{"tasks": [{"a": 1, "a": 2}]'; do
    refused 65 with TEXT="$text" -- edits_with "printf '%s' \"\$TEXT\" >" CC
    assert_stderr_has "your text" "Nothing changed"
    kept=$(find "$TMPDIR" -type f)
    assert_equal "$text" "$(cat "$kept")"
    assert_stderr_has "$kept"
    rm -r "${TMPDIR:?}"/*
  done
  refused 65 edits_with "sed -i '5s/{/{,/'" CC
  assert_stderr_has "line 5, column"
}

@test "what was refused can be mended and taken from its file" {
  run --separate-stderr -65 edits_with "sed -i 's/\"tasks\": \\[/&,/'" CC
  local kept
  kept=$(find "$TMPDIR" -type f)
  local next=${stderr#*next: mend it, then: }
  sed -i 's/\[,/[/; s/End/Start/' "$kept"
  runs with PATH="$SUITE/bin:$PATH" -- bash -c "$next" </dev/null # as it was said, spaces in the path and all
  assert_equal "Start to end tests" "$(task CC TASK-168B title)"
  assert_no_copies
}

@test "when somebody changed the outbox meanwhile nothing is merged, both changes are shown, the text is kept" {
  run --separate-stderr -65 edits_with "'$SUITE/bin/recovery' complete CC TASK-169A theirs >&2; sed -i s/End/Start/" CC
  assert_stderr_has "was changed by somebody while you edited it" '+++ postbox/CC/outbox.json (now)' '"completion_message": "theirs"' \
    '+++ postbox/CC/outbox.json (yours)' '+      "title": "Start to end tests"'
  assert_completed CC TASK-169A theirs
  assert_equal "End to end tests" "$(task CC TASK-168B title)"
  grep -q "Start to end tests" "$(find "$TMPDIR" -type f)"
}

@test "a damaged outbox may be mended" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "A"},]}'
  runs edits_with "sed -i 's/},]/}]/'" CC
  assert_equal '{"tasks": [{"task_id": "A"}]}' "$(cat "$ROOT/postbox/CC/outbox.json")"
}

@test "a claim is not changed by hand" {
  runs with RECOVERY_SESSION=blue -- recovery claim CC TASK-168B
  refused 65 edits_with "sed -i 's/\"generation\": 1/\"generation\": 0/'" CC
  assert_stderr_has "changes the claim of TASK-168B" "recovery release"
  refused 65 edits_with "sed -i 's/\"TASK-168B\"/\"TASK-X\"/'" CC
  runs edits_with "sed -i s/End/Start/" CC
  refused 65 edits_with "sed -i 's/\"title\": \"Load tests\"/&, \"claim\": {\"generation\": 9, \"state\": \"held\", \"owner\": {}}/'" CC
}

@test "an editor that fails changes nothing, and the text is kept" {
  refused 1 edits_with "sed -i s/End/Start/ \"\$1\"; exit 3; :" CC
  assert_stderr_has "the editor ended with 3"
  grep -q "Start to end" "$(find "$TMPDIR" -type f)"
  refused 1 edits_with "no-such-editor-here" CC
}

@test "no agent, an unknown one, or two are refused, and no editor started" {
  refused 64 edits_with "touch started"
  refused 66 edits_with "touch started;" NOBODY
  refused 64 edits_with "touch started;" CC CA
  refused 64 edits_with "touch started;" ../CC
  assert_absent started
}

@test "--dry-run shows the difference and commits nothing" {
  remember_tree
  runs edits_with "sed -i s/End/Start/" --dry-run -v CC
  assert_output_has "would change postbox/CC/outbox.json; nothing changed" '+      "title": "Start to end tests"'
  assert_unchanged
  assert_no_copies
}

edits_meanwhile() { # <editor>; beside the test, until its editor has made the file ready
  EDITOR=$1 "$SUITE/bin/recovery" edit CC <"$BATS_TEST_TMPDIR/stdin" >/dev/null 2>said 3>&- &
  STARTED+=("$!")
  until_there ready
}

@test "a signal ends editor and edit: what was written is kept and named, what wasn't is tidied away" {
  mkfifo "$BATS_TEST_TMPDIR/stdin"
  exec 9<>"$BATS_TEST_TMPDIR/stdin"
  remember_tree
  local number kept
  for number in TERM HUP; do
    edits_meanwhile "sh -c 'sed -i s/End/Start/ \"\$1\"; echo 1 >ready; read a' sh"
    kill -"$number" "${STARTED[-1]}"
    ended_with $((128 + $(kill -l "$number")))
    kept=$(find "$TMPDIR" -type f)
    grep -q "Start to end" "$kept"
    grep -qF "stopped by SIG$number; nothing changed; your text is in $kept" said
    rm -r ready "${TMPDIR:?}"/*
  done
  edits_meanwhile "sh -c 'echo 1 >ready; read a' sh"
  kill -TERM "${STARTED[-1]}"
  ended_with 143
  assert_no_copies
  assert_unchanged
  rm ready said
}

@test "what a killed edit left is named by the next one, removed where nothing was written, and once it is taken over" {
  mkfifo "$BATS_TEST_TMPDIR/stdin"
  exec 9<>"$BATS_TEST_TMPDIR/stdin"
  local kept
  edits_meanwhile "sh -c 'echo 1 >ready; read a' sh"
  kill -KILL "${STARTED[-1]}"
  ended_with 137
  runs edits_with true CC
  assert_equal 1 "$(find "$TMPDIR" -type f | wc -l)" # its editor has it open
  assert_equal "" "$stderr"
  echo >&9
  until_free "$TMPDIR"/recovery-edit-*
  runs edits_with true CC
  assert_no_copies
  rm ready
  edits_meanwhile "sh -c 'sed -i s/End/Start/ \"\$1\"; echo 1 >ready; read a' sh"
  kill -KILL "${STARTED[-1]}"
  ended_with 137
  echo >&9
  until_free "$TMPDIR"/recovery-edit-*
  kept=$(find "$TMPDIR" -type f)
  runs edits_with true CA
  assert_equal "" "$stderr" # another agent's
  runs edits_with true CC
  assert_stderr_has "the text of an earlier edit of CC is still in $kept"
  runs edits_with "cp '$kept'" CC
  assert_equal "Start to end tests" "$(task CC TASK-168B title)"
  assert_no_copies
  rm ready said
}

until_free() { # <folder>; nobody holds its lock
  flock "$1" true
}

at_a_terminal() { # <answers> <editor> <arg>...; recovery edit with a terminal that types the answers at its questions
  with EDITOR="$2" -- "$PYTHON" -I -S -c '
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said = b""
answers = list(sys.argv[1])
while True:
    try:
        data = os.read(fd, 65536)
    except OSError:
        break
    if not data:
        break
    said += data
    if said.endswith(b"throw it away\r\n") and answers:
        said += b"<"
        os.write(fd, answers.pop(0).encode() + b"\n")
sys.stdout.buffer.write(said)
sys.stdout.flush()
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))' "$1" "$SUITE/bin/recovery" edit "${@:3}"
}

@test "at a terminal, e edits again, and what is right then is committed" {
  runs at_a_terminal "?e" "sh -c 'if test -e second; then sed -i \"s/\\[,/[/\" \"\$1\"; else touch second; sed -i \"s/End/Start/; s/\\[/[,/\" \"\$1\"; fi' sh" CC
  assert_output_has "line 4, column" "what now?" "changed postbox/CC/outbox.json"
  assert_equal "Start to end tests" "$(task CC TASK-168B title)"
  assert_no_copies
  rm second
}

@test "at a terminal, x leaves and keeps the text, Q leaves and throws it away" {
  remember_tree
  runs at_a_terminal x "sed -i 's/\\[/[,/'" CC
  assert_output_has "was not changed; your text is in"
  assert_equal 1 "$(find "$TMPDIR" -type f | wc -l)"
  rm -r "${TMPDIR:?}"/*
  runs at_a_terminal Q "sed -i 's/\\[/[,/'" CC
  assert_no_copies
  assert_unchanged
}

@test "an editor that leaves something else than a file is refused, and nothing hangs" {
  local leaves
  # shellcheck disable=SC2016 # for sh
  for leaves in 'rm "$1"; mkfifo "$1"; :' 'rm "$1"; mkdir "$1"; :'; do
    refused 65 edits_with "$leaves" CC
    assert_stderr_has "no regular file"
    assert_no_copies
  done
}
