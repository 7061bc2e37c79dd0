#!/usr/bin/env bash
# Begin a recipe for a corpus: a copy of egs/TEMPLATE/ASR that bears its name and runs at once.
#
#   tools/new_recipe.sh mycorpus                        # egs/mycorpus/ASR
#   tools/new_recipe.sh mycorpus --dir /my/recipe       # anywhere; it remembers where asrprune is
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

usage="usage: tools/new_recipe.sh NAME [--dir FOLDER]"
name='' folder=''
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help)
      printf '%s\n' "$usage" && sed -n '2,${/^#/!q;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --dir=*) folder=${1#*=} ;;
    --dir)
      [[ -n ${2-} ]] || fail "--dir needs a folder; $usage"
      folder=$2 && shift
      ;;
    -*) fail "unknown option $1; $usage" ;;
    *)
      [[ -z $name ]] || fail "two names, $name and $1; $usage"
      name=$1
      ;;
  esac
  shift
done
[[ -n $name ]] || fail "the name of the corpus is missing; $usage"
[[ $name =~ ^[a-z][a-z0-9_-]*[a-z0-9]$ && ! $name =~ ^(true|false|yes|no|on|off|null)$ ]] ||
  fail "'$name' is no name for a corpus: it begins the names of files. Take two or more lower-case" \
    "letters, digits, - and _, such as my_corpus"
folder=${folder:-$root/egs/$name/ASR}
[[ $folder == /* ]] || folder=$PWD/$folder
folder=$(realpath -ms -- "$folder") # ends in its name, not in / or /.
[[ ! -e $folder && ! -L $folder ]] ||
  fail "$folder is there already. Choose another name, or another place with --dir, or remove it"

mkdir -p "$(dirname "$folder")"
copy=$(dirname "$folder")/.tmp-$$-${folder##*/} # renamed once it is whole
trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/conf" "$copy/local"
(
  cd "$root/egs/TEMPLATE/ASR"
  for file in run.sh README.md conf/*.yaml local/*.py; do
    sed "s/mycorpus/$name/g" "$file" >"$copy/$file"
  done
)
# shellcheck disable=SC2016 # as it stands in run.sh of the template, which finds the project so
above='${PWD%/*/*/*}'
if [[ $folder != "$root"/* ]]; then
  place="ASRPRUNE_ROOT=\${ASRPRUNE_ROOT:-${root@Q}}"
  while IFS= read -r line; do
    [[ $line != *"$above"* ]] || printf '%s # where asrprune is\n' "$place"
    printf '%s\n' "$line"
  done <"$copy/run.sh" >"$copy/run.sh.there"
else # as many folders above as there are below the root
  inside=/${folder#"$root"/}
  pattern=
  while [[ -n $inside ]]; do
    inside=${inside%/*} pattern+='/*'
  done
  while IFS= read -r line; do
    printf '%s\n' "${line//"$above"/"\${PWD%$pattern}"}"
  done <"$copy/run.sh" >"$copy/run.sh.there"
fi
mv "$copy/run.sh.there" "$copy/run.sh"
chmod +x "$copy/run.sh"
mv "$copy" "$folder"
trap - EXIT

cat <<END
$folder is a recipe for $name. Next:

  cd $folder
  ./run.sh --rehearsal true          # all of it on synthetic speech, some minutes
  ./run.sh --tables "train=/my/train.tsv dev=/my/dev.tsv test=/my/test.tsv"

README.md says how else the corpus may come in; local/prepare.py is the file to write where no
option fits.
END
