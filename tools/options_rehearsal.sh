# shellcheck shell=bash disable=SC2034 # used where run.sh sources it

# Options of recipes that can be rehearsed; run.sh sources this file after options.sh.

rehearsal=false       # the same stages on a little synthetic speech, all below rehearsal/
rehearsal_hours=0.5   # (number) how much of it to train on
rehearsal_text=numbers # (sentences|numbers) what is said in it; numbers need less speech
