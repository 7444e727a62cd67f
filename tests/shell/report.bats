#!/usr/bin/env bats

load test_helper

# The report and the live page by their command lines; what they say is tried in tests/unit and tests/browser.

@test "report says as text what a person wants to know, and changes nothing" {
  remember_tree
  runs recovery report
  assert_output_has "the 24 h before" AGENTS "TIME LINE" SUCCESS QUEUE STORE "CC: 2 open" "TASK-169A in progress, claimed by nobody"
  runs recovery report --since 90m
  assert_output_has "the 90 min before"
  runs recovery report --json
  assert_output_json 'd["code"], len(d["overview"]["agents"])' "(0, 2)"
  assert_unchanged
}

@test "report --html writes one whole page, where it is told to, and says the state" {
  : >page.html
  runs recovery report --html page.html
  assert_output_has "page.html: "
  runs recovery report --html page.html
  [[ $(head -c 15 page.html) == '<!doctype html>' && $(tail -n 1 page.html) == '</html>' ]]
  assert_equal "page.html" "$(compgen -G 'page*')"
  rm page.html
  runs recovery report --html -
  [[ ${lines[0]} == '<!doctype html>' && ${lines[-1]} == '</html>' && ! -e - ]]
  refused 64 recovery report --html - --json
}

@test "report --html never costs a file of the workspace, or one that is no report" {
  printf mine >precious.txt
  refused 64 recovery report --html "$ROOT/postbox/CC/outbox.json"
  refused 64 recovery report --html "$ROOT/data/journal" --force
  refused 64 recovery report --html precious.txt
  assert_equal mine "$(cat precious.txt)"
  runs recovery report --html precious.txt --force
  refused 64 recovery report --force
}

@test "report and serve refuse what makes no sense, and where there is no workspace" {
  refused 64 recovery report --since yesterday
  refused 64 recovery report --html ''
  refused 64 recovery report here
  refused 64 recovery serve --port 99999
  refused 64 recovery serve --json
  refused 66 recovery -C /nowhere report
  refused 66 recovery -C /nowhere serve
}
