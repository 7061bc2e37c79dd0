# shellcheck shell=bash
# Options of a recipe. run.sh sources this file after its option block: . parse_options.sh "$@"
#
# The option block stands before that line. Each option is a shell variable with a default, at the
# start of a line, and a comment, which may go on in lines that are indented:
#
#   . options.sh
#   tables=4             # how many tables there are
#   epochs=              # (integer) how long to train; empty: as the configuration says
#   avg=1
#
# A line ". options.sh", or of another file of tools/ whose name begins with "options", adds the options
# of that file. These are shared by recipes: a recipe that sets one of them below that line gives it
# another default. The option keeps its comment and its type, where the recipe does not say others.
#
# A default that is true, false or an integer fixes the option's type. Other types stand in
# parentheses before the comment: (integer) and (number) may be empty, (a|b) is one of these words,
# (a|b ...) one or more of them.
#
# Command lines: "--a-b value" or "--a-b=value", "-" and "_" alike. Words of the form key=value are
# gathered in the array "overrides". Values are assigned, never evaluated.
#
# These variables hold what was read; other files may read them:
#
#   option_names     all options, as variables are named; those of the recipe alone come first
#   option_comments  of each option its comment
#   option_given     of each option that the command line gives: yes

declare -a option_names=() own_names=() shared_names=() shared_files=() overrides=()
declare -A option_comments=() option_types=() option_given=()

fail() { # fail MESSAGE...: one clear error, and the end
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

# nearest WORD KNOWN...: " (did you mean 'x'?)" for a misspelt word, or nothing
nearest() {
  printf '%s\n' "$@" | awk '
    function smaller(a, b) { return a < b ? a : b }
    NR == 1 { word = $0; best = int(length(word) / 2) + 1; next }
    { # edit distance, one row of the table at a time
      n = length($0)
      for (j = 0; j <= n; j++) row[j] = j
      for (i = 1; i <= length(word); i++) {
        corner = row[0]; row[0] = i
        for (j = 1; j <= n; j++) {
          above = row[j]
          row[j] = smaller(smaller(above, row[j - 1]) + 1,
                           corner + (substr(word, i, 1) != substr($0, j, 1)))
          corner = above
        }
      }
      if (row[n] < best) { best = row[n]; found = $0 }
    }
    END { if (found != "") printf " (did you mean \047%s\047?)", found }'
}

# default NAME VALUE: another default for an option that the command line did not give
default() {
  [[ -n ${option_given[$1]-} ]] || printf -v "$1" '%s' "$2"
}

# read_options FILE own|shared: the options of a run.sh, or of a file of options that it sources
read_options() {
  local line name='' comment type
  while IFS= read -r line && [[ $line != '. parse_options.sh'* ]]; do
    if [[ $line =~ ^\.\ (options[a-z_]*\.sh)(\ |$) ]]; then
      name=
      shared_files+=("${BASH_SOURCE[0]%/*}/${BASH_REMATCH[1]}")
      read_options "${shared_files[-1]}" shared
    elif [[ $line =~ ^([a-z][a-z0-9_]*)=[^#]*(#\ *(.*))?$ ]]; then
      name=${BASH_REMATCH[1]} comment=${BASH_REMATCH[3]} type=
      if [[ $comment =~ ^\(([^\)]+)\)\ *(.*)$ ]]; then
        type=${BASH_REMATCH[1]} comment=${BASH_REMATCH[2]}
      elif [[ -n ${option_comments[$name]+declared} ]]; then
        type=${option_types[$name]}
      elif [[ ${!name} =~ ^(true|false)$ ]]; then
        type='true|false'
      elif [[ ${!name} =~ ^-?[0-9]+$ ]]; then
        type=integer
      fi
      if [[ -z ${option_comments[$name]+declared} ]]; then
        if [[ $2 == own ]]; then own_names+=("$name"); else shared_names+=("$name"); fi
        option_comments[$name]=$comment
      elif [[ -n $comment ]]; then
        option_comments[$name]=$comment
      fi
      option_types[$name]=$type
    elif [[ -n $name && $line =~ ^[[:space:]]+#\ *(.*)$ ]]; then
      option_comments[$name]+=" ${BASH_REMATCH[1]}"
    else
      name=
    fi
  done <"$1"
}

show_head() { # show_head FILE: the comment that it begins with
  local line
  while IFS= read -r line && [[ $line == '#'* ]]; do
    [[ $line == '#!'* || $line == '# shellcheck '* ]] || printf '%s\n' "${line#\#}" | sed 's/^ //'
  done <"$1"
}

show_options() { # show_options NAME...: each with its default, type and comment
  local name
  for name in "$@"; do
    printf '  --%s %s\n' "${name//_/-}" "${!name:-\"\"}"
    printf '%s\n' "${option_types[$name]:+(${option_types[$name]}) }${option_comments[$name]}" |
      fold -s -w 88 | sed 's/^/        /'
  done
}

show_help() { # show_help FILE: the heads of the script and of the files of options, then every option
  local file
  for file in "$1" "${shared_files[@]}"; do show_head "$file"; done
  printf '\nOptions, with their defaults:\n'
  show_options "${own_names[@]}"
  [[ ${#shared_names[@]} -gt 0 ]] || return 0
  printf '\nOptions that recipes share, with the defaults of this one:\n'
  show_options "${shared_names[@]}"
}

check_option() { # check_option NAME VALUE
  local name=--${1//_/-} value=$2 type=${option_types[$1]} word
  case $type in
    '') ;;
    integer)
      [[ $value =~ ^-?[0-9]+$ || (-z $value && -z ${!1}) ]] || fail "$name: '$value' is no integer"
      ;;
    number)
      [[ $value =~ ^-?([0-9]+\.?[0-9]*|\.[0-9]+)$ || (-z $value && -z ${!1}) ]] ||
        fail "$name: '$value' is no number"
      ;;
    'true|false')
      [[ $value =~ ^(true|false)$ ]] || fail "$name: '$value' is neither true nor false"
      ;;
    *)
      local -a known words
      IFS='|' read -ra known <<<"${type% ...}"
      read -ra words <<<"$value"
      [[ ${#words[@]} -eq 1 || (${#words[@]} -gt 1 && $type == *' ...') ]] ||
        fail "$name: '$value' is not one of: ${known[*]}"
      for word in "${words[@]}"; do
        [[ " ${known[*]} " == *" $word "* ]] ||
          fail "$name: '$word' is not one of: ${known[*]}$(nearest "$word" "${known[@]}")"
      done
      ;;
  esac
}

known_option() { # known_option NAME, as on the command line, without "--"
  local name=${1//-/_}
  local -a known=("${option_names[@]/#/--}")
  [[ $name =~ ^[a-z][a-z0-9_]*$ && -n ${option_comments[$name]+declared} ]] ||
    fail "unknown option --$1$(nearest "--${name//_/-}" "${known[@]//_/-}");" \
      "--help lists every option"
}

set_option() { # set_option NAME VALUE
  local name=${1//-/_} value=$2
  known_option "$1"
  [[ $value != *$'\n'* ]] || fail "--$1: the value has more than one line"
  check_option "$name" "$value"
  printf -v "$name" '%s' "$value"
  option_given[$name]=yes
}

parse_options() { # parse_options FILE WORD...
  local file=$1 name
  shift
  read_options "$file" own
  option_names=("${own_names[@]}" "${shared_names[@]}")
  while [[ $# -gt 0 ]]; do
    case $1 in
      -h | --help)
        show_help "$file"
        exit 0
        ;;
      --*=*)
        name=${1%%=*}
        set_option "${name#--}" "${1#*=}"
        ;;
      --*)
        known_option "${1#--}"
        [[ $# -gt 1 && $2 != --* ]] || fail "$1 needs a value"
        set_option "${1#--}" "$2"
        shift
        ;;
      *=*)
        [[ $1 =~ ^[A-Za-z_][A-Za-z0-9_.]*= && $1 != *$'\n'* ]] ||
          fail "'$1' is no key=value word, such as training.epochs=3"
        overrides+=("$1")
        ;;
      *) fail "'$1' is neither an option (--name value) nor a key=value word" ;;
    esac
    shift
  done
}

parse_options "./${BASH_SOURCE[1]##*/}" "$@"
