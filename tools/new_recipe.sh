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
  for file in run.sh path.sh README.md conf/*.yaml local/*.py; do
    sed "s/mycorpus/$name/g" "$file" >"$copy/$file"
  done
)
chmod +x "$copy/run.sh"
if [[ $folder != "$root"/* ]]; then # path.sh cannot find the project above
  quoted=${root@Q}
  for sign in \\ '&' '|'; do quoted=${quoted//"$sign"/"\\$sign"}; done # as sed needs it
  sed "s|^asrprune_root=.*|asrprune_root=\${ASRPRUNE_ROOT:-$quoted}|" \
    "$root/egs/TEMPLATE/ASR/path.sh" >"$copy/path.sh"
fi
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
