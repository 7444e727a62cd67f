"""The safeties of the suite, each as the fault that its absence would be, with the test that must notice.

A mutant says what a user would lose, where the safety stands (`before`, which occurs once in `file`), what stands there
without it (`after`) and the narrowest test that goes red: a pytest node id, or FILE.bats::NAME OF THE TEST.
Who changes a safety changes its mutant; who finds a mutant that survives writes the missing test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One seeded fault; `more` are further places in the same file, where one alone would leave a second safety."""

    name: str
    what: str
    file: str
    before: str
    after: str
    test: str
    more: tuple[tuple[str, str], ...] = ()
    #: Why a torture can't see it by its nature; "" if it can.
    torture: str = ""

    @property
    def changes(self) -> tuple[tuple[str, str], ...]:
        return ((self.before, self.after), *self.more)


_FAILING, _KILL, _RACES = (
    "tests/crash/test_failing_calls.py::",
    "tests/crash/test_kill.py::",
    "tests/crash/test_races.py::",
)
_GAPS = "tests/mutations/test_gaps.py::"
_UNIT = "tests/unit/test_"
_DATA_LOCKS = "tests/shell/data_locks.bats::"

_ORDER = _FAILING + "test_what_a_power_cut_may_not_reorder_is_synced_in_order[complete-object]"
MUTANTS = (
    # --- what a crash leaves
    Mutant(
        "in-place-write",
        "a crash in the middle of a write leaves a file cut off",
        "py/recovery/finish.py",
        '    os.rename(file["stage"], place.base, src_dir_fd=place.folder, dst_dir_fd=place.folder)\n',
        '    with open(os.open(file["stage"], os.O_RDONLY, dir_fd=place.folder), "rb") as new:\n'
        "        data = new.read()\n"
        "    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC\n"
        '    with open(os.open(place.base, flags, 0o644, dir_fd=place.folder), "wb", 0) as target:\n'
        "        target.write(data[: len(data) // 2])\n"
        '        steps.at("half-written", file["name"])\n'
        "        target.write(data[len(data) // 2 :])\n"
        '    os.unlink(file["stage"], dir_fd=place.folder)\n',
        _KILL + "test_killed_at_any_step_the_same_command_finishes_with_one_effect[complete-object-kill-group]",
    ),
    Mutant(
        "stage-not-synced",
        "after a power cut the renamed file may be empty",
        "py/recovery/durable.py",
        "            os.fsync(self._fd)\n",
        "",
        _ORDER,
    ),
    Mutant(
        "rename-before-the-commit-point",
        "a power cut leaves new files that no journal knows of: half a change, for good",
        "py/recovery/commit.py",
        "            journal.sync()\n",
        "            for stage, place in zip(self.stages, self.places):\n"
        "                if stage is not None:\n"
        "                    durable.into_place(place, stage.base, place.base)\n"
        '                    steps.at("renamed-early", place.name)\n'
        "            journal.sync()\n",
        _ORDER,
    ),
    Mutant(
        "rename-before-the-fsync",
        "a breaker's or a key's new state, or a backup, may be an empty file after a power cut",
        "py/recovery/commit.py",
        "            stage.sync()  # behind the assignment: what can't be synced is discarded\n",
        "",
        _GAPS + "test_a_single_files_new_bytes_are_durable_before_its_name_is",
    ),
    Mutant(
        "put-folder-not-synced",
        "what a breaker or a key said before a power cut may be forgotten after it",
        "py/recovery/commit.py",
        "            os.fsync(place.folder)\n",
        "            pass\n",
        _GAPS + "test_a_single_files_new_bytes_are_durable_before_its_name_is",
    ),
    Mutant(
        "journal-not-synced",
        "files are replaced that, after a power cut, nobody can finish",
        "py/recovery/commit.py",
        "            journal.sync()\n",
        "",
        _ORDER,
    ),
    Mutant(
        "folders-not-synced",
        "a change that was said to be done is gone after a power cut",
        "py/recovery/finish.py",
        "                os.fsync(folder)\n",
        "",
        _ORDER,
    ),
    Mutant(
        "new-folders-not-synced",
        "a folder made for the change (data/, completed/) is gone after a power cut, with what was put into it",
        "py/recovery/durable.py",
        "                os.fsync(folder)\n",
        "",
        _GAPS + "test_a_folder_made_for_a_change_is_durable",
    ),
    Mutant(
        "log-not-synced",
        "the journal forgets a change before the change log is sure to know of it: no rollback, done twice",
        "py/recovery/finish.py",
        'record.line, line["txid"], check=not own, sync=True)',
        'record.line, line["txid"], check=not own, sync=False)',
        _ORDER,
    ),
    Mutant(
        "done-mark-not-synced",
        "after a power cut a finished change counts as unfinished, over newer work",
        "py/recovery/journal.py",
        '        self.sync("done-sync")\n',
        "",
        _ORDER,
        torture="the change log is synced before the mark, and says the same: no state after a power cut shows it",
    ),
    Mutant(
        "torn-record-believed",
        "a record that was half written when the power went is carried out",
        "py/recovery/journal.py",
        '        if durable.digest_of(b"%d " % seq + body) != words[3].decode("ascii", "replace"):\n',
        "        if False:\n",
        _UNIT + "journal.py::test_a_record_torn_at_any_byte_never_happened[some sectors]",
    ),
    Mutant(
        "torn-mark-believed",
        "a torn done mark makes an unfinished change a finished one",
        "py/recovery/journal.py",
        '    if head != word.encode() or digest.decode("ascii", "replace") != durable.digest_of(head + text):\n',
        "    if head != word.encode() or not text:\n",
        _UNIT + "journal.py::test_a_mark_torn_at_any_byte_leaves_the_record_as_it_was[done]",
        torture="what a mark is about to say is true when it is written: torn by a power cut, it is not wrong",
    ),
    Mutant(
        "torn-tail-not-repaired",
        "the first line after a crash is glued to a torn one, and lost with it",
        "py/recovery/jsonl.py",
        '    if size and os.pread(fd, 1, size - 1) != b"\\n":\n',
        "    if False:\n",
        _UNIT + "jsonl.py::test_a_tail_torn_at_any_byte_costs_one_line_and_is_counted",
    ),
    Mutant(
        "signals-not-deferred",
        "Ctrl-C or a shutdown in the middle of a commit leaves it half done, and says nothing",
        "py/recovery/finish.py",
        "(plain.SIG_BLOCK, (plain.SIGINT, plain.SIGTERM, plain.SIGHUP, plain.SIGALRM))",
        "(plain.SIG_BLOCK, ())",
        _GAPS + "test_a_signal_in_the_middle_of_a_commit_waits_for_its_end[replaced:2]",
    ),
    # --- what the next one finds
    Mutant(
        "unfinished-record-ignored-by-readers",
        "the same command after a crash says `already completed` of a task that is half completed",
        "py/recovery/store.py",
        "                if record is None or not locks_of(record) & set(held.locks):\n",
        "                if True:\n",
        _KILL + "test_killed_at_any_step_the_same_command_finishes_with_one_effect[complete-object-kill-group]",
    ),
    Mutant(
        "unfinished-record-overwritten",
        "another agent's commit overwrites the journal of a dead one, which stays half done for good",
        "py/recovery/commit.py",
        "            if record is not None:\n                raise _Resolve(record)\n",
        "",
        _RACES + "test_a_commit_over_other_files_finishes_the_dead_one_first[stage:1-replaced:1]",
    ),
    Mutant(
        "resolved-with-locks-in-hand",
        "two who meet the same dead commit wait for each other",
        "py/recovery/store.py",
        "            held.release()  # resolve from empty hands\n",
        "",
        "tests/shell/recover.bats::another command on the same agent finishes it first",
    ),
    Mutant(
        "record-not-read-again",
        "who waited to finish a dead commit does it once more over what was committed meanwhile",
        "py/recovery/resolve.py",
        "            now = store.unfinished()\n",
        "            now = record\n",
        _GAPS + "test_who_comes_late_to_a_dead_commit_leaves_what_others_did_since",
    ),
    Mutant(
        "edit-applied-twice",
        "a counter goes up twice when a dead commit is finished",
        "py/recovery/finish.py",
        '        if stand == "after":\n            file["expect"] = now\n            return\n'
        '        if stand != "before":\n',
        '        if stand not in ("before", "after"):\n',
        _RACES + "test_a_correct_writer_between_crash_and_recovery_keeps_its_change[recover-replaced:3]",
    ),
    Mutant(
        "change-recorded-twice",
        "a change that was finished for a dead process stands in the change log twice",
        "py/recovery/finish.py",
        'record.line, line["txid"], check=not own, sync=True)',
        'record.line, line["txid"], check=False, sync=True)',
        _RACES + "test_a_restore_after_the_record_stands_in_the_log_is_left_alone[done-mark:1]",
    ),
    Mutant(
        "persons-restore-undone",
        "who put the old outbox back after a crash finds the completion done again behind his back",
        "py/recovery/finish.py",
        "        if not own and st is not None and",
        "        if False and st is not None and",
        _RACES + "test_a_completion_that_a_person_took_back_is_not_silently_redone[replaced:1-same-agent]",
    ),
    Mutant(
        "abort-not-journalled",
        "killed while a change is undone, it is redone half",
        "py/recovery/undo.py",
        "        journal.mark_abort(record, kind_of(why), words(why))\n",
        '        record.direction = "ABORT"\n',
        _RACES + "test_killed_at_any_step_of_an_abort_nothing_is_half_done[other-replace:3=ENOSPC]",
    ),
    Mutant(
        "backup-restored-over-newer-work",
        "undoing a dead change puts its backup over what others did to the outbox since",
        "py/recovery/undo.py",
        "        restage(store, place, file, jsontext.pieces(text, back))\n",
        '        kept = [base for base in os.listdir(place.folder) if base.startswith(place.base + ".backup_")]\n'
        "        data = jsontext.pieces(text, back)\n"
        "        if kept:\n"
        "            copy = os.open(kept[0], os.O_RDONLY, dir_fd=place.folder)\n"
        '            data = iter([open(copy, "rb").read()])\n'
        "        restage(store, place, file, data)\n",
        _GAPS + "test_what_is_undone_is_undone_field_by_field_under_others_newer_work",
    ),
    Mutant(
        "protected-files-restored-whole",
        "a failed run's rollback puts its copy over what others committed meanwhile",
        "py/recovery/protect.py",
        "            text = _with_commits(name, old.text if old is not None else None, meanwhile)\n",
        "            text = old.text if old is not None else None\n",
        _UNIT + "rollback_of_files.py::test_rollback_keeps_what_others_committed_meanwhile",
    ),
    Mutant(
        "rollback-over-somebodys-value",
        "a rollback overwrites what somebody set the same field to since",
        "py/recovery/rollback.py",
        '        if stand == "other":\n',
        "        if False:\n",
        "tests/shell/rollback.bats::refuses where somebody changed the same field since, with both values",
    ),
    Mutant(
        "older-backup-overwritten",
        "the only good copy of an outbox is overwritten by a later backup of the same name",
        "py/recovery/commit.py",
        "        put_away(target)\n",
        "        pass\n",
        _UNIT + "rollback_of_files.py::test_an_older_differing_backup_is_never_overwritten",
    ),
    # --- what is said
    Mutant(
        "success-before-verify",
        "`completed` is said of a file that an unlocked writer threw back meanwhile",
        "py/recovery/finish.py",
        '        now = durable.current_hash(store.root.place(file["name"]))[0]\n        if now == file["expect"]:\n',
        '        now = file["expect"]\n        if now == file["expect"]:\n',
        _RACES + "test_a_file_thrown_back_to_the_old_state_before_it_is_read_back_is_replaced_again",
    ),
    Mutant(
        "completed-twice",
        "a repeated completion overwrites time and message of the first",
        "py/recovery/complete.py",
        '        if status.lower() == "completed" and not (again and found.get("missing")):\n',
        "        if False:\n",
        "tests/shell/complete.bats::the same command again is a no-op that says so",
        more=(
            (
                '        if not tasks.may_become(status, "completed") and not found.get("missing"):\n',
                "        if False:\n",
            ),
        ),
    ),
    Mutant(
        "progress-completed-twice",
        "the time at which progress.json says that a task was completed is overwritten by a later one",
        "py/recovery/tasks.py",
        "        if status == new:\n            return []\n",
        "",
        _GAPS + "test_a_task_that_progress_has_as_completed_is_left_there_as_it_is",
    ),
    Mutant(
        "timeout-said-to-be-success",
        "a command that got no lock exits 0, and the caller goes on as if it were done",
        "py/recovery/helper.py",
        "        report_error(refusal, as_json)\n        return refusal.code\n",
        "        report_error(refusal, as_json)\n        return 0 if refusal.code == 75 else refusal.code\n",
        _RACES + "test_a_lock_held_for_ever_ends_in_75_within_the_limit",
    ),
    Mutant(
        "timeout-with-the-wrong-code",
        "a busy lock looks like a damaged disk: callers that try again on 75 give up",
        "py/recovery/contention.py",
        "                error.waited = now - began\n",
        "                error.waited, error.code = now - began, 74\n",
        _DATA_LOCKS
        + "24: a lock that is held for ever ends the command in time, with a message, and nothing is changed",
    ),
    # --- locks
    Mutant(
        "lock-let-go-after-the-read",
        "two writers plan on the same state",
        "py/recovery/store.py",
        "                change = plan()\n",
        "                change = plan()\n                held.release()\n",
        _RACES + "test_a_stopped_holder_is_waited_for_and_never_robbed[stage:1]",
    ),
    Mutant(
        "lock-let-go-before-the-replace",
        "a program that keeps to the locks reads a file just before it is replaced, and writes over it",
        "py/recovery/commit.py",
        "        work.committed = True\n",
        "        work.committed = True\n        held.release()\n",
        _GAPS + "test_the_data_locks_are_held_until_the_last_file_is_in_place",
    ),
    Mutant(
        "progress-without-its-lock",
        "agents that complete at the same time, and programs that lock progress.json, lose each other's counts",
        "py/recovery/store.py",
        "        for name in held.names:\n            locks.add(self._lock_name(name))\n",
        "        for name in held.names:\n            if name != layout.PROGRESS:\n"
        "                locks.add(self._lock_name(name))\n",
        _RACES + "test_a_lock_held_for_ever_ends_in_75_within_the_limit",
    ),
    Mutant(
        "lock-file-unlinked",
        "a program that waits with flock(1) gets the lock of a nameless file, and two are inside",
        "py/recovery/flock.py",
        "                flock(fd, LOCK_UN)\n",
        "                os.unlink(self.base, dir_fd=self.folder)\n                flock(fd, LOCK_UN)\n",
        _DATA_LOCKS + "a lock file is never truncated and never unlinked",
    ),
    Mutant(
        "lock-of-a-nameless-file",
        "a waiter holds the lock of a file that was removed, together with the holder of the new one",
        "py/recovery/flock.py",
        "    if not held.is_current():\n        return False\n    if learn",
        "    held.is_current()\n    if learn",
        _GAPS + "test_who_waits_for_a_lock_file_that_is_removed_waits_for_the_new_ones_holder",
    ),
    Mutant(
        "inode-not-compared",
        "a holder whose lock file was replaced takes the new one, which another holds, for its own",
        "py/recovery/flock.py",
        "        if now.st_ino != mine.st_ino or now.st_dev != mine.st_dev:\n            return False\n",
        "",
        _RACES + "test_a_holder_notices_that_its_lock_file_is_gone[postbox/CC/.outbox.json.lock]",
    ),
    Mutant(
        "lock-not-checked-before-the-commit",
        "a holder whose lock file somebody cleaned away commits over the one who walked in",
        "py/recovery/commit.py",
        '        steps.at("recheck")\n        if not held.all_current() or not lock.is_current():\n',
        '        steps.at("recheck")\n        if False:\n',
        _RACES + "test_a_holder_notices_that_its_lock_file_is_gone[.sprint/.progress.json.lock]",
    ),
    Mutant(
        "symlink-as-lock",
        "a link planted in the place of a lock file has its victim opened, created and written to",
        "py/recovery/flock.py",
        "_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC\n",
        "_OPEN = os.O_NONBLOCK | os.O_CLOEXEC\n",
        _DATA_LOCKS
        + "27: a lock file that is a link: the victim is untouched, nothing is created, the command refuses",
        more=(("dir_fd=self.folder, follow_symlinks=False)", "dir_fd=self.folder)"),),
    ),
    Mutant(
        "stale-lock-robbed",
        "a holder that is stopped, or slow, is robbed because its lock file looks old",
        "py/recovery/contention.py",
        '    steps.at("wait", held.name)\n',
        '    steps.at("wait", held.name)\n'
        "    if time.time() - os.fstat(held.fd).st_mtime > 3600:\n"
        "        os.unlink(held.base, dir_fd=held.folder)\n"
        "        return\n",
        _RACES + "test_a_stopped_holder_is_waited_for_and_never_robbed[recheck:1]",
    ),
    Mutant(
        "waiting-for-oneself",
        "a hook run under flock(1) waits for its own parent until the timeout",
        "py/recovery/contention.py",
        "        if processes.has_open(pid, want, locked=True):\n",
        "        if False:\n",
        _DATA_LOCKS + "60: a child of the data lock's holder is told at once, with the holder's name",
    ),
    Mutant(
        "lockf-in-the-place-of-flock",
        "shell scripts that use flock(1) and our commands walk into each other",
        "py/recovery/flock.py",
        "from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock\n",
        "from fcntl import LOCK_EX, LOCK_NB, LOCK_UN\nfrom fcntl import lockf as flock\n",
        _RACES + "test_a_lock_held_for_ever_ends_in_75_within_the_limit",
    ),
    Mutant(
        "lockf-in-python-programs",
        "shell scripts that use flock(1) and Python programs that use FileLock walk into each other",
        "py/recovery/locks.py",
        "from fcntl import flock as kernel_flock\n",
        "from fcntl import lockf as kernel_flock\n",
        _UNIT + "file_locking.py::test_flock_of_the_shell_and_filelock_exclude_each_other",
    ),
    Mutant(
        "child-unlocks-its-parents-lock",
        "a forked child that ends lets others into what its parent still holds",
        "py/recovery/flock.py",
        "            if self.pid == os.getpid():\n",
        "            if True:\n",
        _UNIT + "file_locking.py::test_a_forked_child_closes_and_never_unlocks",
    ),
    # --- writers who ignore the locks
    Mutant(
        "overwritten-at-the-replace",
        "what a program that ignores the locks wrote right before our rename is gone",
        "py/recovery/finish.py",
        '    if now == file["before"]:\n        if not own',
        "    if True:\n        if not own",
        _RACES + "test_a_foreign_writer_without_lock_is_met_and_both_changes_stay",
    ),
    Mutant(
        "overwritten-by-a-put",
        "what somebody wrote into a breaker's, budget's or key's file right before our rename is gone",
        "py/recovery/commit.py",
        "        if not _is_unchanged(place, change.before):\n",
        "        if False:\n",
        _GAPS + "test_a_file_that_was_changed_before_its_put_is_planned_anew",
    ),
    Mutant(
        "overwritten-by-a-transaction",
        "file_transaction overwrites what a program that ignores the lock wrote meanwhile",
        "py/recovery/swap.py",
        "    if durable.current_hash(place)[0] != before:\n",
        "    if False:\n",
        _UNIT + "file_locking.py::test_a_writer_who_ignores_the_lock_is_noticed_and_keeps_his_change",
    ),
    # --- data
    Mutant(
        "message-run-by-the-shell",
        "a completion message is run as a command",
        "lib/python.sh",
        'start_python() { # <interpreter> <arg>...\n  "$@"\n',
        "start_python() { # <interpreter> <arg>...\n  local word line=\n"
        '  for word; do line+=" \\"$word\\""; done\n  eval "$line"\n',
        "tests/shell/messages.bats::31: a command substitution is text",
    ),
    Mutant(
        "id-unchecked",
        "an id like ../CC names files outside of its folder",
        "py/recovery/layout.py",
        "    if not is_id(text):\n",
        "    if not text:\n",
        "tests/shell/ids.bats::30: two dots are no id, nor part of one",
    ),
    Mutant(
        "name-leads-out",
        "a forged name in the journal or a log reaches files outside of the workspace",
        "py/recovery/durable.py",
        '    if base in ("", ".", "..") or "/" in base',
        '    if base == "" or "/" in base',
        _UNIT + "hostile_state.py::test_no_name_leads_out_of_the_root[../x]",
    ),
    Mutant(
        "numbers-through-a-float",
        "an outbox is written anew: big integers, 1.0 and its spacing come back as something else",
        "py/recovery/commit.py",
        "            return jsontext.pieces(edit.before.text, edit.splices)\n",
        '            text = b"".join(jsontext.pieces(edit.before.text, edit.splices)).decode("utf-8")\n'
        '            return (jsontext.pretty(jsontext.loads(text)).encode("utf-8"),)\n',
        "tests/shell/outbox_kept.bats::40: big integers, floats, -0.0 and exponents stay as they are written",
    ),
    Mutant(
        "duplicate-key-guessed",
        "of two members with the same name one is changed, and readers take the other",
        "py/recovery/jsontext.py",
        "            if key in names:\n",
        "            if False:\n",
        "tests/shell/outbox_damaged.bats::36: the same key twice in the task itself",
    ),
    # --- the recovery manager
    Mutant(
        "checkpoint-not-synced",
        "a checkpoint that was acknowledged is gone after a power cut",
        "py/recovery/checkpoints.py",
        "    size = store.append(name, line, snapshot=layout.checkpoint(task, folder))\n",
        "    size = store.append(name, line, sync=False, snapshot=layout.checkpoint(task, folder))\n",
        _UNIT + "recovery_checkpoints.py::test_a_full_disk_refuses_and_loses_nothing",
    ),
    Mutant(
        "append-not-synced",
        "no log line is durable when its writer goes on: checkpoints, failures, the change log",
        "py/recovery/store.py",
        "                os.fdatasync(fd)\n",
        "                pass\n",
        _GAPS + "test_a_checkpoint_is_durable_before_it_is_acknowledged",
    ),
    Mutant(
        "call-before-its-started-record",
        "a process dies in a payment, and the next one pays again",
        "py/recovery/once.py",
        '            self._write(store, "started")\n',
        "            pass\n",
        _UNIT + "recovery_once.py::test_killed_at_any_step_the_effect_is_there_at_most_once",
    ),
    Mutant(
        "unknown-outcome-guessed",
        "a call that may have taken effect is made again without asking anybody",
        "py/recovery/once.py",
        "        if verify is None:\n            raise OutcomeUnknown(what, hint=hint)\n",
        "        if verify is None:\n            return False\n",
        _UNIT + "recovery_once.py::test_killed_at_any_step_the_effect_is_there_at_most_once",
    ),
    Mutant(
        "half-open-lets-two-in",
        "all who wait call a service that has only just come back",
        "py/recovery/breaker.py",
        "        raise CircuitOpen(self.name, self._clock() + PROBE_PAUSE, "
        'PROBE_PAUSE, "it is being tried just now")\n',
        "        return Ticket(self, state.key)\n",
        _UNIT + "recovery_breaker.py::test_exactly_one_of_16_processes_tries_a_half_open_breaker",
    ),
    Mutant(
        "breaker-without-its-lock",
        "processes that fail at the same time lose each other's failures: the breaker never opens",
        "py/recovery/breaker.py",
        "                with store.lock([self.file], create=True) as held:\n",
        "                with Held(store, ()) as held:\n",
        _UNIT + "recovery_breaker.py::test_eight_processes_lose_no_failure",
        more=(
            ("from recovery.store import FileStore\n", "from recovery.store import FileStore, Held\n"),
            (
                "                        version = None if reading.problem else reading.version\n",
                "                        version = read(store, self.file).version\n",
            ),
        ),
    ),
    Mutant(
        "budget-without-its-lock",
        "processes that retry at the same time exceed the budget that all of them share",
        "py/recovery/budget.py",
        "        with store.lock([layout.BUDGET], create=True) as held:\n",
        "        from recovery.store import Held\n\n        with Held(store, ()) as held:\n",
        _UNIT + "recovery_budget.py::test_eight_processes_at_once_never_exceed_the_budget_and_lose_no_try",
        more=(
            (
                "                store.commit(held, Put(layout.BUDGET, version, ",
                "                version = store.read(layout.BUDGET, strict=False)\n"
                "                store.commit(held, Put(layout.BUDGET, version, ",
            ),
        ),
    ),
    Mutant(
        "escalation-overwritten",
        "a second escalation overwrites the first, which nobody has read yet",
        "py/recovery/escalations.py",
        "        name = layout.escalation(task, min(set(range(MOST)) - taken), folder)\n",
        "        name = layout.escalation(task, 0, folder)\n",
        _UNIT + "recovery_notify.py::test_the_same_reason_is_told_once_until_a_person_resolves_it",
    ),
    # --- what is put aside, repaired, undone
    Mutant(
        "log-put-aside-under-a-commit",
        "a line of the change log that a crash left undecided is written a second time, or not found",
        "py/recovery/segments.py",
        "        if store.unfinished() is not None:\n            return None\n",
        "",
        _UNIT + "segments.py::test_nothing_is_put_aside_while_a_commit_is_unfinished",
        torture="no operation of it puts a log aside",
    ),
    Mutant(
        "part-removed-before-its-copy",
        "a crash while a log is compressed loses its lines",
        "py/recovery/segments.py",
        "        made.sync()\n        if not _holds(",
        "        os.unlink(place.base, dir_fd=place.folder)\n        made.sync()\n        if not _holds(",
        _UNIT + "segments.py::test_killed_at_any_step_every_line_is_there_once",
        torture="no operation of it puts a log aside",
    ),
    Mutant(
        "archived-without-its-line",
        "a task leaves its outbox and stands nowhere else",
        "py/recovery/archive.py",
        '    change.derived = [{"name": name, "append": line} for name, line in lines]\n',
        "    change.derived = []\n",
        _UNIT + "archiving.py::test_an_archived_task_is_still_known",
    ),
    Mutant(
        "undo-of-the-undo",
        "an undo that is repeated, for nobody knew whether it was done, undoes itself",
        "py/recovery/rollback.py",
        "                is_done = True\n",
        "                pass\n",
        "tests/unit/test_torture_errors.py::test_an_undo_that_is_not_confirmed_is_not_undone_by_its_repeat",
    ),
    Mutant(
        "repaired-without-quarantine",
        "the only copy of a damaged file is written over",
        "py/recovery/treat.py",
        "            if version is not None:\n"
        '                found["kept"] = quarantine.keep(self.store, name, data, report, version.mode, version.gid)\n'
        "            self.ask(agent, name, made.doubts",
        "            self.ask(agent, name, made.doubts",
        _UNIT + "doctor.py::test_all_ten_at_once_are_repaired_and_the_commands_work_again",
        torture="no operation of it damages a file for the doctor",
    ),
    # --- what a browser sees
    Mutant(
        "words-as-html",
        "a task's title runs a script in the browser of whoever looks at the report",
        "py/recovery/report_page.py",
        "    return escape(harmless(str(value)))\n",
        "    return harmless(str(value))\n",
        _UNIT + "report.py::test_somebodys_words_are_shown_and_make_no_element_and_no_attribute",
        torture="it opens no page",
    ),
    Mutant(
        "any-token",
        "every user of the machine reads the workspace while somebody looks at it",
        "py/recovery/serve.py",
        "        if above or not hmac",
        "        if above and not hmac",
        _UNIT + "serve.py::test_without_the_token_nothing_is_answered",
        torture="it opens no page",
    ),
    Mutant(
        "any-host",
        "a web page that turns its own name to 127.0.0.1 reads the workspace",
        "py/recovery/serve.py",
        '        if self.headers.get_all("Host", []) not in self.server.hosts:\n',
        '        if not self.headers.get_all("Host"):\n',
        _UNIT + "serve.py::test_under_another_name_nothing_is_answered_so_that_no_web_page_gets_in",
        torture="it opens no page",
    ),
)
