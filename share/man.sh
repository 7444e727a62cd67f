#!/bin/bash
# Usage: man.sh NAME HELP-FILE
#
# A manual page on stdout, from the same comment that NAME --help prints.
set -euo pipefail

# shellcheck source=lib/help.sh
source "${BASH_SOURCE[0]%/*}/../lib/help.sh"

manual() { # <name> <help file>
  local name=$1 line section=SYNOPSIS list='' gap='' code=''
  local -a body=()
  mapfile -t body < <(print_help "$2")
  title "$name"
  printf '.SH NAME\n'
  summary "${body[@]}"
  write '' "$name - $SUMMARY"
  printf '.SH SYNOPSIS\n'
  for line in "${body[@]}"; do
    if [[ -n $code && $line != '  '* ]]; then
      printf '.fi\n.RE\n'
      code='' gap=yes
    fi
    if [[ -z $line ]]; then
      gap=yes
      continue
    fi
    if [[ $section == SYNOPSIS && $line =~ ^(Usage:|'      ')' '(.*) ]]; then
      printf '.nf\n'
      write '\fB' "${BASH_REMATCH[2]}" '\fR'
      printf '.fi\n'
      continue
    elif [[ $section == SYNOPSIS ]]; then
      section=DESCRIPTION gap=''
      printf '.SH DESCRIPTION\n'
    fi
    if [[ $line =~ ^([A-Z][a-z]+):$ ]]; then
      printf '.SH %s\n' "${BASH_REMATCH[1]^^}"
      list=''
    elif [[ $line =~ ^'Exit codes: '(.*) ]]; then
      printf '.SH EXIT STATUS\n'
      write '' "${BASH_REMATCH[1]}"
      list=''
    elif [[ $line != '  '* ]]; then
      [[ -z $gap && -z $list ]] || printf '.PP\n'
      write '' "$line"
      list=''
    elif [[ -z $gap$code && $line =~ ^'  '[^\ ] && ${line:2} == *'  '* ]]; then
      # right below a line of text: a thing, and behind two spaces its meaning
      printf '.TP\n'
      write '\fB' "${line:2}" '\fR'
      list=yes
    elif [[ -n $list && $line == '   '* ]]; then
      write '' "${line#"${line%%[! ]*}"}"
    else # behind a gap: to be typed
      [[ -n $code ]] || printf '.PP\n.RS 4\n.nf\n'
      write '' "${line:2}"
      code=yes list=''
    fi
    gap=''
  done
  [[ -z $code ]] || printf '.fi\n.RE\n'
}

title() { # <name>
  local line version=''
  while IFS= read -r line; do
    [[ ! $line =~ ^__version__\ =\ \"(.*)\"$ ]] || version=${BASH_REMATCH[1]}
  done <"$RECOVERY_SUITE/py/recovery/__init__.py"
  printf '.TH "%s" 1 "" "postbox-recovery %s" "Postbox Recovery"\n' "${1^^}" "$version"
}

summary() { # <line>...; sets SUMMARY, the first sentence of the description
  local line usage=yes
  SUMMARY=''
  for line in "$@"; do
    if [[ -n $usage ]]; then
      [[ -n $line ]] || usage=''
    elif [[ -z $line ]]; then
      break
    else
      SUMMARY+="${SUMMARY:+ }$line"
    fi
  done
  [[ ! $SUMMARY =~ ^([^.:?]*[^.:?\ ])[.:?](\ |$) ]] || SUMMARY=${BASH_REMATCH[1]}
}

write() { # <roff before> <text> [<roff behind>]; a line, `words to type` in bold
  local text=$2 shown='' bold=''
  if [[ $1 == '\fB' && $text == *'  '* ]]; then # an item of a list: its meaning is a line of its own
    write "$1" "${text%%'  '*}" "$3"
    text=${text#*'  '}
    write '' "${text#"${text%%[! ]*}"}"
    return
  fi
  text=${text//\\/\\e}
  text=${text//-/\\-}
  text=${text//\~/\\(ti}
  text=${text//^/\\(ha}
  text=${text//\'/\\(aq}
  while [[ $text == *'`'* ]]; do
    shown+=${text%%'`'*}
    text=${text#*'`'}
    if [[ -n $bold ]]; then
      shown+='\fR' bold=''
    else
      shown+='\fB' bold=yes
    fi
  done
  shown+=$text
  [[ $shown != .* ]] || shown="\\&$shown"
  printf '%s%s%s\n' "$1" "$shown" "${3-}"
}

manual "$@"
