# shellcheck shell=bash
# The stages of a recipe. run.sh sources this file after its options were parsed, calls "stage" once
# for each stage, in order, and "finish" at the end. run.sh declares --stage, --stop-stage, --dry-run.
#
#   stage NAME FOLDER [--part P] [--of "NUMBER PART"] [--after "NUMBER PART"] [--aside] [--options VARIABLE...]
#         [--texts FILE...] [--needs PATH...] [--makes PATH...] -- COMMAND...
#
# COMMAND is "run ...", "run_to FILE ...", "run_into FOLDER ..." or a function made of these. A stage
# that ends well leaves a sentinel in FOLDER/.stages: the values of its options (shell variables of
# run.sh), digests of its texts (small files of options, comments apart) and of the sentinels before
# it, never of data. A stage is skipped while its sentinel says the same and all that it makes is
# there; to force one, remove something that it makes. Paths may be patterns. No stage depends on one
# that is --aside.
#
# A function "preflight", where run.sh has one, runs before the first stage that is not done, so that
# a misspelt option is not found out after hours. It is all that a dry run runs.
#
# Two runs that meet in a folder wait for each other: a stage locks its FOLDER, and the first stage's
# FOLDER, where the data is, against being rewritten. The locks end with the processes that hold
# them, so nothing is stale after a crash.

declare -a stage_names=(
  download manifests features validate tokenizer train average search decode score export
)
declare -a visited=()                     # keys of the stages so far, "number part"
declare -A labels=() digests=() made_by=() # of a key; of a key; of a path
current_stage='' child='' previous='' data_folder='' begun=false

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# --- which stages ---------------------------------------------------------------------------------

find_stage() { # find_stage OPTION WORD: "number" of a stage that is given by number or name
  for number in "${!stage_names[@]}"; do
    [[ $2 != "$number" && $2 != "${stage_names[number]}" ]] || return 0
  done
  fail "$1: '$2' is no stage$(nearest "$2" "${stage_names[@]}"); stages are 0 to" \
    "$((${#stage_names[@]} - 1)), by name: ${stage_names[*]}"
}

has_stage() { # in the files of the recipe, or in what recipes share, where it sources that
  local shared
  local -a files=("./${0##*/}" local/*.sh)
  for shared in transducer importers; do
    ! grep -q "^\. $shared\.sh" "./${0##*/}" || files+=("${BASH_SOURCE[0]%/*}/$shared.sh")
  done
  grep -Eqs "^ *stage ${stage_names[$1]}( |\$)" "${files[@]}"
}

: "${stage:?} ${stop_stage:?} ${dry_run:?}"
find_stage --stage "$stage" && first_stage=$number
find_stage --stop-stage "$stop_stage" && last_stage=$number
has_stage "$first_stage" ||
  fail "--stage $stage: this recipe has no stage $first_stage (${stage_names[first_stage]})"
has_stage "$last_stage" || [[ $stop_stage == "$last_stage" ]] ||
  fail "--stop-stage $stop_stage: this recipe has no such stage"
[[ $first_stage -le $last_stage ]] || fail "--stage $stage comes after --stop-stage $stop_stage"

# --- commands -------------------------------------------------------------------------------------

show() { # show WORD...: a command line as it could be typed
  local word line=
  for word in "$@"; do
    [[ $word =~ ^[][A-Za-z0-9_./=:,@%+*-]+$ || $word == '>' ]] || word=${word@Q}
    line+=" $word"
  done
  if [[ $dry_run == true ]]; then echo "${line# }"; else echo "+$line" >&2; fi
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
  [[ $dry_run == true ]] || supervise "$@"
}

run_to() { # run_to FILE COMMAND...: the same; its standard output goes to FILE once it ends well
  local file=$1
  shift
  show "$@" '>' "$file"
  [[ $dry_run != true ]] || return 0
  mkdir -p "$(dirname "$file")"
  supervise "$@" >"$file.part"
  mv "$file.part" "$file"
}

run_into() { # run_into FOLDER COMMAND...: the same for files in FOLDER, the command's last argument
  local folder=$1
  shift
  show "$@" "$folder"
  [[ $dry_run != true ]] || return 0
  rm -rf "$folder/.part"
  mkdir -p "$folder/.part"
  supervise "$@" "$folder/.part"
  exists "$folder/.part/*" || fail "$1 ended and made nothing: $(show "$@" 2>&1)"
  mv "$folder/.part"/* "$folder"
  rmdir "$folder/.part"
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

trap 'stop INT 130' INT
trap 'stop TERM 143' TERM
trap 'stop HUP 129' HUP
trap '[[ -z $current_stage ]] || say "$current_stage failed; its error is above." \
  "Once the cause is removed, the same command goes on from this stage"' EXIT

# --- locks ----------------------------------------------------------------------------------------

# lock DESCRIPTOR exclusive|shared FOLDER: the descriptor is open on the folder's lock file. Locks belong
# to the open file, so a process that inherits it (a training whose run.sh was killed) holds them until
# it ends. A file system without locks is warned of once, and the run goes on.
lock_warning=warn
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

# The functions from here on read and set the variables of the stage that calls them.

# The stages right before this one, in "before"; where these come in parts, and the same part is
# among them or one that this part's name ends in (fr of train-fr), that part alone; of several the
# longest (nan-tw, not tw, of train-nan-tw). And the one that --after names, where it was called; only
# that and the one of --of, where there is --of.
find_upstream() {
  local other name own='' previous=-1
  before=()
  if [[ -n $of ]]; then
    before=("$of")
    [[ -z $after || -z ${labels[$after]-} ]] || before+=("$after")
    return
  fi
  for other in "${visited[@]}"; do
    [[ ${other%% *} -ge $number || ${other%% *} -le $previous ]] || previous=${other%% *}
  done
  for other in "${visited[@]}"; do
    [[ ${other%% *} == "$previous" ]] || continue
    before+=("$other")
    name=${other#* }
    [[ "-$part" != *"-$name" || ${#name} -le ${#own} ]] || own=$name
  done
  [[ -z $own ]] || before=("$previous $own")
  [[ -z $after || -z ${labels[$after]-} ]] || before+=("$after")
}

# What the sentinel is to say, in "facts".
gather_facts() {
  local word value
  local -a before
  facts=()
  for word in "${options[@]}"; do
    value="${word}[*]"
    if [[ -n ${option_comments[$word]-} ]]; then word=--$word; fi
    facts+=("${word//_/-}=${!value-}")
  done
  for word in "${texts[@]}"; do
    facts+=("text of $word=$({ LC_ALL=C grep -aEv '^[[:space:]]*(#|$)' "$word" 2>/dev/null || true; } | digest)")
  done
  find_upstream
  for word in "${before[@]}"; do
    facts+=("${labels[$word]}=${digests[$word]:-not run}")
  done
}

# Why the sentinel does not say the facts, in "reasons"; its digest, in "stored".
compare() {
  local line key
  local -A said=()
  stored='' reasons=()
  while IFS= read -r line; do
    said[${line%%=*}]=${line#*=}
  done <"$sentinel"
  stored=${said[digest]-}
  for line in "${facts[@]}"; do
    key=${line%%=*}
    [[ "$key=${said[$key]-}" != "$line" || -z $stored ]] || continue
    case $key in
      stage*) reasons+=("$key has run with other options since") ;;
      text*) reasons+=("${key#text of } was edited") ;;
      *) reasons+=("$key was '${said[$key]-}', is '${line#*=}'") ;;
    esac
  done
}

# --- a stage --------------------------------------------------------------------------------------

stage() { # see the head of this file
  local name=$1 folder=$2 part='' of='' after='' aside='' list='' stored='' number path
  local -a options=() texts=() needs=() makes=() facts=() reasons=()
  shift 2
  while [[ $1 != -- ]]; do
    case $1,$list in
      --part,*) part=$2 && shift ;;
      --of,*) of=$2 && shift ;;
      --after,*) after=$2 && shift ;;
      --aside,*) aside=yes ;;
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
  find_stage stage "$name"
  local key="$number $part" label="stage $number ($name${part:+, $part})"
  local sentinel="$folder/.stages/$name${part:+.$part}"
  data_folder=${data_folder:-$folder}
  gather_facts
  [[ -n $aside ]] || visited+=("$key")
  labels[$key]=$label
  for path in "${makes[@]}"; do made_by[$path]="$number $name"; done

  if [[ $number -lt $first_stage || $number -gt $last_stage ]]; then
    pass_over
  elif [[ $dry_run == true ]]; then
    echo "# $label"
    "$@"
  else
    work_on "$@"
  fi
  digests[$key]=$stored
}

pass_over() { # a stage that is not to run: only its sentinel counts, for the stages after it
  if [[ -e $sentinel ]]; then
    compare
    [[ ${#reasons[@]} -eq 0 || $number -gt $last_stage || $dry_run == true ]] ||
      say "note: $label is not to run, though $(listed "${reasons[@]}")"
  fi
}

is_done() { # whether a sentinel is there and all it says holds; else "reasons" tell why not
  reasons=()
  [[ -e $sentinel ]] || return 1
  compare
  for path in "${makes[@]}"; do
    exists "$path" || reasons+=("$path is missing")
  done
  [[ ${#reasons[@]} -eq 0 ]]
}

work_on() { # work_on COMMAND...: run a stage, unless it is done
  if is_done; then
    say "$label is done"
    return
  fi
  for path in "${needs[@]}"; do
    exists "$path" || missing "$path"
  done
  mkdir -p "$data_folder/.stages" "$folder/.stages"
  begin
  exec 8>>"$data_folder/.stages/lock" 9>>"$folder/.stages/lock"
  [[ $folder == "$data_folder" ]] || lock 8 shared "$data_folder"
  lock 9 exclusive "$folder"
  if is_done; then # by the run that this one waited for
    say "$label is done"
  else
    say "$label${reasons[*]:+ runs again: $(listed "${reasons[@]}")}"
    rm -f "$sentinel"
    local started=$SECONDS
    current_stage=$label
    "$@"
    for path in "${makes[@]}"; do
      exists "$path" || fail "$label ended and did not make $path"
    done
    current_stage=
    stored=$(printf '%s\n' "$folder" "${facts[@]}" | digest)
    printf '%s\n' "${facts[@]}" "digest=$stored" >"$sentinel.part"
    mv "$sentinel.part" "$sentinel"
    say "$label took $((SECONDS - started)) s"
  fi
  exec 8>&- 9>&-
}

begin() { # before the first stage that is not done
  [[ $begun == false ]] || return 0
  begun=true
  command -v asrprune >/dev/null ||
    fail "asrprune is not installed; tools/setup_env.sh, at the root of the project, does that"
  if declare -F preflight >/dev/null; then preflight >/dev/null; fi
}

missing() { # missing PATH: an input that is not there
  local maker=${made_by[$1]-}
  [[ -n $maker ]] || fail "$label needs $1, which does not exist"
  fail "$label needs $1, which stage ${maker% *} (${maker#* }) makes: ./${0##*/} --stage ${maker#* }"
}

listed() { # listed REASON...: in one line, the first few
  local line
  printf -v line '%s; ' "${@:1:4}"
  [[ $# -le 4 ]] || line+="and $(($# - 4)) more; "
  printf '%s' "${line%; }"
}

finish() { # finish FILE...: the end of a recipe; FILEs hold the results of stage score
  if [[ $dry_run == true ]]; then
    if declare -F preflight >/dev/null; then dry_run=false preflight; fi
    return
  fi
  say "stages $first_stage (${stage_names[first_stage]}) to $last_stage" \
    "(${stage_names[last_stage]}) are done"
  [[ $first_stage -gt 9 || $last_stage -lt 9 ]] || cat "$@"
}
