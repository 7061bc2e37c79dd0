# shellcheck shell=bash disable=SC2178 # of references to arrays
# The stages of a recipe, as functions: sourcing this file runs nothing. run.sh sources it after its
# options were parsed, and calls in this order:
#
#   begin_stages FIRST LAST DRY_RUN [NAME...]   what --stage, --stop-stage and --dry-run say, and which
#                                               stages the recipe has; without NAMEs: all
#   check COMMAND...                            for each check
#   stage ...                                   for each stage, in order
#   finish
#
#   stage NAME FOLDER [--part P] [--of STAGE] [--after STAGE] [--aside] [--options OPTION...]
#         [--texts FILE...] [--needs PATH...] [--makes PATH...] [--shows FILE] -- COMMAND...
#
# COMMAND is "run ...", "run_to FILE ...", "run_into FOLDER ..." or a function made of these. A stage
# that ends well leaves a sentinel in FOLDER/.stages: the values of its options, digests of its texts
# (small files of options, comments apart) and of the sentinels before it, never of data. An OPTION is
# a variable of run.sh by its name, or name=value. A stage is skipped while its sentinel says the same
# and all that it makes is there; to force one, remove something that it makes. Paths may be patterns.
#
# STAGE is the name of another stage, with its part, if any: "average" or "average:pathways". A stage
# depends on the stages right before it, see find_upstream. With --of it depends on that stage alone,
# with --after on that one as well, where it was called. On a stage that is --aside depend only those
# that name it. FILE of --shows is printed at the end.
#
# Checks run before the first stage that is not done, so that a misspelt option is not found out after
# hours. They are all that a dry run runs.
#
# Two runs that meet in a folder wait for each other: a stage locks its FOLDER, and the first stage's
# FOLDER, where the data is, against being rewritten. The locks end with the processes that hold
# them, so nothing is stale after a crash.
#
# A function whose comment begins with RESULT sets the variable of its caller that its first argument
# names, and no other.

declare -a stage_names=(
  download manifests features validate tokenizer train average search decode score export
)

# What these functions keep between calls. No other file reads or sets it.
first_stage='' last_stage='' dry='' # of begin_stages
declare -a checks=()                # each as the number of its words, and these
declare -a visited=()               # the stages so far, as name:part or name
declare -A numbers=() labels=() digests=() # of these stages
declare -A made_by=()               # of a path: number and name of the stage that makes it
declare -a shown=()                 # files to print at the end
data_folder='' begun=false lock_warning=warn
current_stage='' child='' previous='' # what is at work

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# --- which stages ---------------------------------------------------------------------------------

# stage_number RESULT OPTION WORD: number of the stage that WORD gives by number or name
stage_number() {
  local -n into=$1
  local index
  for index in "${!stage_names[@]}"; do
    if [[ $3 == "$index" || $3 == "${stage_names[index]}" ]]; then
      into=$index
      return
    fi
  done
  fail "$2: '$3' is no stage$(nearest "$3" "${stage_names[@]}"); stages are 0 to" \
    "$((${#stage_names[@]} - 1)), by name: ${stage_names[*]}"
}

begin_stages() { # see the head of this file
  local has=" ${*:4} "
  [[ $# -gt 3 ]] || has=" ${stage_names[*]} "
  stage_number first_stage --stage "$1"
  stage_number last_stage --stop-stage "$2"
  dry=$3
  [[ $has == *" ${stage_names[first_stage]} "* ]] ||
    fail "--stage $1: this recipe has no stage $first_stage (${stage_names[first_stage]})"
  [[ $has == *" ${stage_names[last_stage]} "* || $2 == "$last_stage" ]] ||
    fail "--stop-stage $2: this recipe has no such stage"
  [[ $first_stage -le $last_stage ]] || fail "--stage $1 comes after --stop-stage $2"
  trap 'stop INT 130' INT
  trap 'stop TERM 143' TERM
  trap 'stop HUP 129' HUP
  trap '[[ -z $current_stage ]] || say "$current_stage failed; its error is above." \
    "Once the cause is removed, the same command goes on from this stage"' EXIT
}

# --- commands -------------------------------------------------------------------------------------

show() { # show WORD...: a command line as it could be typed
  local word line=
  for word in "$@"; do
    [[ $word =~ ^[][A-Za-z0-9_./=:,@%+*-]+$ || $word == '>' ]] || word=${word@Q}
    line+=" $word"
  done
  if [[ $dry == true ]]; then echo "${line# }"; else echo "+$line" >&2; fi
}

# Run a command so that signals are answered at once: bash answers none while it waits for a command
# in the foreground. One in the background ignores interrupts, unless it is told to take them.
supervise() {
  local status=0
  previous=${!-} child=starting
  (
    trap - INT QUIT
    exec "$@"
  ) &
  child=$!
  wait "$child" || status=$?
  child=
  return "$status"
}

run() { # run COMMAND...: show it and run it
  show "$@"
  [[ $dry == true ]] || supervise "$@"
}

run_to() { # run_to FILE COMMAND...: the same; its standard output goes to FILE once it ends well
  local file=$1
  shift
  show "$@" '>' "$file"
  [[ $dry != true ]] || return 0
  mkdir -p "$(dirname "$file")"
  supervise "$@" >"$file.part"
  mv "$file.part" "$file"
}

run_into() { # run_into FOLDER COMMAND...: the same for files in FOLDER, the command's last argument
  local folder=$1
  shift
  show "$@" "$folder"
  [[ $dry != true ]] || return 0
  rm -rf "$folder/.part"
  mkdir -p "$folder/.part"
  supervise "$@" "$folder/.part"
  exists "$folder/.part/*" || fail "$1 ended and made nothing: $(show "$@" 2>&1)"
  mv "$folder/.part"/* "$folder"
  rmdir "$folder/.part"
}

check() { # check COMMAND...: to run before the first stage that is not done
  checks+=("$#" "$@")
}

run_checks() {
  local at=0
  while [[ $at -lt ${#checks[@]} ]]; do
    "${checks[@]:at+1:checks[at]}"
    at=$((at + 1 + checks[at]))
  done
}

# --- signals and failures -------------------------------------------------------------------------

stop() { # stop SIGNAL STATUS: end the command at work, then this script
  local tenths=0
  trap - INT TERM HUP # a second signal ends all at once
  if [[ $child == starting ]]; then # the signal came before its number was kept
    child=${!-}
    [[ $child != "$previous" ]] || child=
  fi
  if [[ -n $child ]]; then
    say "stopping${current_stage:+ $current_stage}"
    # What signals a group, such as Ctrl-C or a batch system, has told the command too; it may be
    # saving its state and would take a second signal for "at once".
    while [[ $tenths -lt 50 ]] && kill -0 "$child" 2>/dev/null; do
      sleep 0.1
      tenths=$((tenths + 1))
    done
    [[ $1 == INT && -t 0 ]] || kill -s "$1" "$child" 2>/dev/null || true
    wait "$child" || true
  fi
  say "stopped${current_stage:+ in $current_stage}; the same command goes on from there"
  current_stage=
  exit "$2"
}

# --- locks ----------------------------------------------------------------------------------------

# lock DESCRIPTOR exclusive|shared FOLDER: the descriptor is open on the folder's lock file. Locks belong
# to the open file, so a process that inherits it (a training whose run.sh was killed) holds them until
# it ends. A file system without locks is warned of once, and the run goes on.
lock() {
  local status=0
  supervise python3 -m asrprune.base.locks "$@" try "$lock_warning" || status=$?
  if [[ $status -eq 75 ]]; then
    say "another run is at work in $3, or something that it left running; waiting for it to end" \
      "(Ctrl-C to leave). Another folder for this run: --data-dir, or --tag"
    status=0
    supervise python3 -m asrprune.base.locks "$@" wait "$lock_warning" || status=$?
  fi
  case $status in
    0) ;;
    69) lock_warning=quiet ;;
    *) fail "the lock of $3 could not be asked for; the error is above" ;;
  esac
}

# --- sentinels ------------------------------------------------------------------------------------

digest() { # digest of standard input, 16 hexadecimal digits
  { sha256sum 2>/dev/null || shasum -a 256; } | cut -c 1-16
}

exists() { [[ -e $1 ]] || compgen -G "$1" >/dev/null; }

# find_upstream RESULT NUMBER PART: adds the stages right before stage NUMBER; where these come in
# parts, and the same part is among them or one that PART ends in (fr of train-fr), that part alone;
# of several the longest (nan-tw, not tw, of train-nan-tw).
find_upstream() {
  local -n into=$1
  local other name own='' longest='' latest=-1
  for other in "${visited[@]}"; do
    [[ ${numbers[$other]} -ge $2 || ${numbers[$other]} -le $latest ]] || latest=${numbers[$other]}
  done
  for other in "${visited[@]}"; do
    [[ ${numbers[$other]} == "$latest" ]] || continue
    into+=("$other")
    [[ $other == *:* ]] || continue
    name=${other#*:}
    [[ "-$3" != *"-$name" || ${#name} -le ${#longest} ]] || own=$other longest=$name
  done
  [[ -z $own ]] || into=("$own")
}

# gather_facts RESULT OPTIONS TEXTS STAGES: adds what the sentinel is to say of these, a line each. All
# arguments are names of arrays.
gather_facts() {
  local -n into=$1 of_options=$2 of_texts=$3 of_stages=$4
  local word value
  for word in "${of_options[@]}"; do
    if [[ $word == *=* ]]; then
      value=${word#*=} word=${word%%=*}
    else
      value="${word}[*]" && value=${!value-}
    fi
    if [[ -n ${option_comments[$word]-} ]]; then word=--$word; fi
    into+=("${word//_/-}=$value")
  done
  for word in "${of_texts[@]}"; do
    into+=("text of $word=$({ LC_ALL=C grep -aEv '^[[:space:]]*(#|$)' "$word" 2>/dev/null || true; } | digest)")
  done
  for word in "${of_stages[@]}"; do
    into+=("${labels[$word]}=${digests[$word]:-not run}")
  done
}

# compare RESULT SENTINEL FACT...: why the sentinel does not say these facts
compare() {
  local -n into=$1
  local line key
  local -A said=()
  while IFS= read -r line; do
    said[${line%%=*}]=${line#*=}
  done <"$2"
  into=()
  for line in "${@:3}"; do
    key=${line%%=*}
    [[ "$key=${said[$key]-}" != "$line" || -z ${said[digest]-} ]] || continue
    case $key in
      stage*) into+=("$key has run with other options since") ;;
      text*) into+=("${key#text of } was edited") ;;
      *) into+=("$key was '${said[$key]-}', is '${line#*=}'") ;;
    esac
  done
}

# is_done RESULT SENTINEL FACTS PATHS: whether the sentinel is there and says these facts, and all of
# these paths exist; else why not. FACTS and PATHS are names of arrays.
is_done() {
  local -n why=$1 all_facts=$3 all_paths=$4
  local path
  why=()
  [[ -e $2 ]] || return 1
  compare why "$2" "${all_facts[@]}"
  for path in "${all_paths[@]}"; do
    exists "$path" || why+=("$path is missing")
  done
  [[ ${#why[@]} -eq 0 ]]
}

stored_digest() { # stored_digest SENTINEL: the sentinel's own digest
  sed -n 's/^digest=//p' "$1"
}

# --- a stage --------------------------------------------------------------------------------------

stage() { # see the head of this file
  local name=$1 folder=$2 part='' of='' after='' aside=false shows='' list='' number path started
  local -a options=() texts=() needs=() makes=() upstream=() facts=() reasons=()
  shift 2
  while [[ $1 != -- ]]; do
    case $1,$list in
      --part,*) part=$2 && shift ;;
      --of,*) of=$2 && shift ;;
      --after,*) after=$2 && shift ;;
      --aside,*) aside=true ;;
      --shows,*) shows=$2 && shift ;;
      --options,* | --texts,* | --needs,* | --makes,*) list=$1 ;;
      *,--options) options+=("$1") ;;
      *,--texts) texts+=("$1") ;;
      *,--needs) needs+=("$1") ;;
      *,--makes) makes+=("$1") ;;
      *) fail "stage $name: what is $1?" ;;
    esac
    shift
  done
  shift
  stage_number number stage "$name"
  local key=$name${part:+:$part} label="stage $number ($name${part:+, $part})"
  local sentinel="$folder/.stages/$name${part:+.$part}"
  data_folder=${data_folder:-$folder}
  if [[ -n $of ]]; then upstream=("$of"); else find_upstream upstream "$number" "$part"; fi
  [[ -z $after || -z ${labels[$after]-} ]] || upstream+=("$after")
  gather_facts facts options texts upstream
  [[ $aside == true ]] || visited+=("$key")
  numbers[$key]=$number labels[$key]=$label digests[$key]=
  for path in "${makes[@]}"; do made_by[$path]="$number $name"; done

  if [[ $number -lt $first_stage || $number -gt $last_stage ]]; then # only its sentinel counts
    [[ -e $sentinel ]] || return 0
    compare reasons "$sentinel" "${facts[@]}"
    [[ ${#reasons[@]} -eq 0 || $number -gt $last_stage || $dry == true ]] ||
      say "note: $label is not to run, though $(listed "${reasons[@]}")"
    digests[$key]=$(stored_digest "$sentinel")
    return 0
  fi
  [[ -z $shows ]] || shown+=("$shows")
  if [[ $dry == true ]]; then
    echo "# $label"
    "$@"
    return 0
  fi
  if ! is_done reasons "$sentinel" facts makes; then
    for path in "${needs[@]}"; do
      exists "$path" || missing "$label" "$path"
    done
    mkdir -p "$data_folder/.stages" "$folder/.stages"
    begin_work
    exec 8>>"$data_folder/.stages/lock" 9>>"$folder/.stages/lock"
    [[ $folder == "$data_folder" ]] || lock 8 shared "$data_folder"
    lock 9 exclusive "$folder"
  fi
  if is_done reasons "$sentinel" facts makes; then # maybe by the run that this one waited for
    say "$label is done"
  else
    say "$label${reasons[*]:+ runs again: $(listed "${reasons[@]}")}"
    rm -f "$sentinel"
    started=$SECONDS
    current_stage=$label
    "$@"
    for path in "${makes[@]}"; do
      exists "$path" || fail "$label ended and did not make $path"
    done
    current_stage=
    printf '%s\n' "${facts[@]}" "digest=$(printf '%s\n' "$folder" "${facts[@]}" | digest)" \
      >"$sentinel.part"
    mv "$sentinel.part" "$sentinel"
    say "$label took $((SECONDS - started)) s"
  fi
  exec 8>&- 9>&-
  digests[$key]=$(stored_digest "$sentinel")
}

begin_work() { # before the first stage that is not done
  [[ $begun == false ]] || return 0
  begun=true
  command -v asrprune >/dev/null ||
    fail "asrprune is not installed; tools/setup_env.sh, at the root of the project, does that"
  run_checks >/dev/null
}

missing() { # missing LABEL PATH: an input of a stage that is not there
  local maker=${made_by[$2]-}
  [[ -n $maker ]] || fail "$1 needs $2, which does not exist"
  fail "$1 needs $2, which stage ${maker% *} (${maker#* }) makes: ./${0##*/} --stage ${maker#* }"
}

listed() { # listed REASON...: in one line, the first few
  local line
  printf -v line '%s; ' "${@:1:4}"
  [[ $# -le 4 ]] || line+="and $(($# - 4)) more; "
  printf '%s' "${line%; }"
}

finish() { # the end of a recipe
  if [[ $dry == true ]]; then
    dry=false run_checks
    return
  fi
  say "stages $first_stage (${stage_names[first_stage]}) to $last_stage" \
    "(${stage_names[last_stage]}) are done"
  [[ ${#shown[@]} -eq 0 ]] || cat "${shown[@]}"
}
