#!/bin/bash
# Runs $COMMANDS, and again where another try may help: out of memory (20), and transient failures (75). Twice at most.
# GitHub starts no job again by itself; the codes are those of `pipeline/line/plan_formats.py`, and a test compares them.
for left in 2 1 0; do
  bash -euc "$COMMANDS" && exit
  code=$?
  case "$left,$code" in
    [12],20 | [12],75) echo "exit code $code: $left more of 3 tries" >&2 ;;
    *) exit "$code" ;;
  esac
done
