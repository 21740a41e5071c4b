# shellcheck shell=bash
# Sourced by the other scripts: `set_up run` and `set_up test` make .venv and install
# what that command needs, or return at once when that is done already.
#
# .venv/installed-run and .venv/installed-test hold the requirements and the Python
# version that were installed, and are written last: a .venv without them is unfinished.

say() { printf 'launch: %s\n' "$1" >&2; }

fail() {
  say "$1"
  exit 1
}

fail_to_write() {
  fail "Cannot write to $PWD/.venv: make it writable, or copy the repository elsewhere."
}

set_up() {
  local goal=$1 version
  [[ -z ${OVS_PYTHON:-} ]] || check_python "$OVS_PYTHON" "OVS_PYTHON=$OVS_PYTHON"
  if is_installed "$goal"; then return; fi

  lock
  if is_installed "$goal"; then return; fi  # by the start we waited for
  trap 'say "Interrupted; start again to go on from here."; exit 130' INT
  if ! version=$(venv_version); then
    make_venv
    version=$(venv_version) || explain 'Making .venv failed'
  fi
  install_packages "$goal"
  trap - INT
  exec 9>&-  # or the program would hold the lock as long as it runs
}

is_installed() {
  local version
  version=$(venv_version) || return 1
  [[ -f .venv/installed-$1 && $(<".venv/installed-$1") == "$(signature "$version")" ]]
}

# The requirements without their comments, so that editing a comment installs nothing.
signature() {
  printf 'Python %s\n' "$1"
  sed -E 's/(^|[[:space:]])#.*//' requirements.txt requirements/*.txt
}

# --- Python -----------------------------------------------------------------------

version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null
}

is_new_enough() { [[ $1 =~ ^3\.([0-9]+)$ && ${BASH_REMATCH[1]} -ge 11 ]]; }

has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 </dev/null; }

check_python() {
  local version
  version=$(version_of "$1") ||
    fail "$2 does not run: set OVS_PYTHON to a Python 3.11 or newer, or unset it."
  is_new_enough "$version" ||
    fail "$2 is Python $version: set OVS_PYTHON to a Python 3.11 or newer, or unset it."
}

# Prints the version of .venv, if it is whole and the one OVS_PYTHON asks for.
venv_version() {
  local version
  [[ ! -e .venv/unfinished && -x .venv/bin/python ]] || return 1
  version=$(version_of .venv/bin/python) && is_new_enough "$version" || return 1
  [[ -d .venv/lib/python$version/site-packages ]] || return 1  # Python was replaced
  [[ -z ${OVS_PYTHON:-} || $(version_of "$OVS_PYTHON") == "$version" ]] || return 1
  printf '%s\n' "$version"
}

# Prints the path of the Python to make .venv with.
find_python() {
  local names=(python3.13 python3.12 python3.11 python3) name path version bare=''
  [[ -z ${OVS_PYTHON:-} ]] || names=("$OVS_PYTHON")
  for name in "${names[@]}"; do
    path=$(type -P -- "$name") || continue
    [[ $path != "$PWD/.venv/"* ]] || continue  # an activated .venv cannot remake itself
    version=$(version_of "$path") && is_new_enough "$version" || continue
    if has_venv "$path"; then
      printf '%s\n' "$path"
      return
    fi
    bare=${bare:-"$path (Python $version)"}
  done
  [[ -z $bare ]] || fail "$bare cannot make virtual environments: install its venv\
 module (on Debian and Ubuntu the package python3-venv), or set OVS_PYTHON to another."
  fail "No Python 3.11 or newer was found on PATH: install one, or set OVS_PYTHON to\
 one."
}

# --- Installing -------------------------------------------------------------------

# Two starts at once would write over each other's files; pip keeps the lock even when
# this script is killed before it.
lock() {
  local message
  if ! message=$({ mkdir -p .venv && : >>.venv/lock; } 2>&1); then
    [[ $message != *'No space left'* ]] || fail "The disk of $PWD is full."
    fail_to_write
  fi
  exec 9>>.venv/lock
  type -P flock >/dev/null || return 0
  flock -n 9 || {
    say 'Waiting for another start to finish installing.'
    flock 9 || true  # some network file systems have no locks
  }
}

make_venv() {
  local python
  python=$(find_python)
  say "Making .venv with $python."
  : >.venv/unfinished
  # Not .venv itself: it may be a link to a larger disk, and holds the lock.
  find .venv/ -mindepth 1 -maxdepth 1 ! -name lock ! -name unfinished -exec rm -rf {} +
  env -u PYTHONPATH -u PYTHONHOME -u PYTHONDONTWRITEBYTECODE \
    "$python" -m venv .venv >.venv/install.log 2>&1 </dev/null ||
    explain 'Making .venv failed'
  rm -f .venv/unfinished
}

install_packages() {
  local goal=$1 file=requirements.txt info
  [[ $goal != test ]] || file=requirements/test.txt
  say "Installing $file into .venv (the first time: a few minutes, and 3 GB of disk)."
  rm -f .venv/installed-*
  for info in .venv/lib/python*/site-packages/*.dist-info; do
    # pip writes INSTALLER after a package's files: without it the package is cut short.
    [[ -e $info/INSTALLER || ! -d $info ]] || rm -rf "$info"
  done
  : >.venv/install.log
  pip --version >>.venv/install.log 2>&1 ||
    .venv/bin/python -m ensurepip >>.venv/install.log 2>&1 || explain 'There is no pip'
  pip install --progress-bar off -r "$file" 2>&1 | show_progress ||
    explain 'Installing failed'
  # Apart from the others because only pip's command line can say --no-deps.
  pip install --no-deps -r requirements/vocabulary-py313.txt >>.venv/install.log 2>&1 ||
    explain 'Installing failed'
  signature "$version" >.venv/installed-new
  if [[ $goal == test ]]; then cp .venv/installed-new .venv/installed-run; fi
  mv .venv/installed-new ".venv/installed-$goal"
  say 'Installed.'
}

# Adds JAX's plugin for an accelerator: cuda12, cuda13 or tpu.
add_accelerator() {
  local kind=$1 marker=.venv/installed-$1 wanted
  wanted=$(cat .venv/installed-run "requirements/$kind.txt")
  [[ ! -f $marker || $(<"$marker") != "$wanted" ]] || return 0
  lock
  say "Installing requirements/$kind.txt into .venv (for CUDA, several gigabytes)."
  pip install --progress-bar off -r "requirements/$kind.txt" 2>&1 | show_progress ||
    explain 'Installing failed'
  printf '%s\n' "$wanted" >"$marker"
  say 'Installed.'
  exec 9>&-
}

# In .venv whatever the user's pip settings say, seeing only .venv's packages, and
# compiling them so that the program starts quickly.
pip() {
  env -u PYTHONPATH -u PYTHONHOME -u PYTHONDONTWRITEBYTECODE -u PIP_TARGET \
    -u PIP_PREFIX PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    .venv/bin/python -m pip --no-input "$@" </dev/null
}

# Everything goes to the log, only the large downloads to the terminal.
show_progress() {
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line" >&8
    case $line in
      *'Downloading '*'('[0-9][0-9]*' MB)'*)
        line=${line##*Downloading }
        say "  downloading ${line##*/}"
        ;;
      'Installing collected packages'*) say '  unpacking' ;;
    esac
  done 8>>.venv/install.log
}

# Ends with the one sentence that says what the log's errors mean.
explain() {
  local log=.venv/install.log error found
  local network='connection ?(broken|error|refused|reset|aborted)|unreachable|timed out'
  network+='|name resolution|name or service not known|proxyerror|sslerror|http error'
  logged() { grep -qiE "$1" "$log"; }
  # A full disk may have no room for the log either.
  if logged 'no space left|errno 28|quota exceeded' ||
    ! { printf '%9999s' '' >.venv/probe && rm .venv/probe; } 2>/dev/null; then
    fail "The disk is full: $PWD/.venv needs about 3 GB and ${TMPDIR:-/tmp} about 1 GB."
  elif logged "$network"; then
    fail "The package index cannot be reached: check the network, proxy and pip\
 settings, then start again (details in $log)."
  elif logged 'could not find a version|no matching distribution'; then
    error=$(sed -nE 's/.*(requirement|found for) ([^ ]+).*/\2/p' "$log" | tail -n 1)
    found=$(version_of .venv/bin/python || version_of python3 || true)
    fail "The package index has no $error for this machine's Python $found: set\
 OVS_PYTHON to another version (3.11 to 3.13 are tested), or check pip's index\
 settings."
  elif logged 'permission denied|read-only file system'; then
    fail_to_write
  fi
  error=$(grep -E '^(ERROR|Error)' "$log" | tail -n 1 || true)
  fail "$1: ${error:-the reason is unknown} (details in $log)."
}

# --- Running ----------------------------------------------------------------------

# Becomes .venv's Python, so that signals and the exit code are the program's own.
run_python() {
  unset PYTHONSAFEPATH PYTHONHOME  # `python -m` finds ovs_jax in this directory
  export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}  # TensorFlow: only errors
  # The same results on every CPU, and no lines about it.
  export TF_ENABLE_ONEDNN_OPTS=${TF_ENABLE_ONEDNN_OPTS:-0}
  # Keeps freed memory, in huge pages: without it the kernel clears the gigabytes of a
  # training step anew each time, and training on CPUs takes half as long again.
  local malloc=glibc.malloc.hugetlb=1
  malloc+=:glibc.malloc.mmap_threshold=8589934592
  malloc+=:glibc.malloc.trim_threshold=8589934592
  export GLIBC_TUNABLES=${GLIBC_TUNABLES:-$malloc}
  export MPLBACKEND=${MPLBACKEND:-Agg}  # plots go to files, with or without a screen
  exec .venv/bin/python "$@"
}
