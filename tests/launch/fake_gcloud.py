"""A gcloud that knows the flags of the real one, with two workers on this machine.

Those of queued resources and of ssh are from gcloud's reference
(cloud.google.com/sdk/gcloud/reference, read 2026-11-28), those of scp and storage were
not compared with it. Others are refused, as gcloud does.
"""

import pathlib
import subprocess

from fake_checkout import Checkout

FLAGS = {
  'compute tpus queued-resources create': 'accelerator-type async boot-disk data-disk '
  'description guaranteed internal-ips labels metadata metadata-from-file network '
  'node-count node-id node-prefix project range reserved runtime-version scopes '
  'service-account shielded-secure-boot spot subnetwork tags topology type '
  'valid-after-duration valid-after-time valid-until-duration valid-until-time zone',
  'compute tpus queued-resources describe': 'format project zone',
  'compute tpus queued-resources delete': 'async force project quiet zone',
  'compute tpus tpu-vm describe': 'format project zone',
  'compute tpus tpu-vm ssh': 'command dry-run force-key-file-overwrite internal-ip '
  'output-directory plain project ssh-flag ssh-key-file strict-host-key-checking '
  'worker zone',
  'compute tpus tpu-vm scp': 'compress dry-run force-key-file-overwrite internal-ip '
  'plain project recurse scp-flag ssh-key-file strict-host-key-checking worker zone',
  'storage ls': 'long recursive',
  'storage rsync': 'checksums-only delete-unmatched-destination-objects dry-run '
  'exclude no-clobber recursive',
}

# What is asked for goes through the states in $FAKE/states, one at each look, and stays
# in the last, as does what is asked for anew; its machines are as $FAKE/machines says.
# Workers are the directories $FAKE/worker0 and worker1; buckets are below $FAKE/gs.
# $FAKE/create can refuse a request, $FAKE/ssh a connection.
SCRIPT = r"""#!/bin/bash
set -eu
words=() flags=()
for argument in "$@"; do
  case $argument in
    --*) flags+=("$argument") ;;
    *) words+=("$argument") ;;
  esac
done
{cases}
  *) echo "gcloud: no command ${{words[*]}}" >&2; exit 2 ;;
esac
for flag in "${{flags[@]}}"; do
  key=${{flag%%=*}}
  [[ " $known " == *" ${{key#--}} "* ]] || {{
    echo "gcloud: unrecognized arguments: $flag" >&2; exit 2
  }}
  key=${{key#--}}
  printf -v "flag_${{key//-/_}}" %s "${{flag#*=}}"
done
printf '%q ' gcloud "$@" >>"$FAKE/gcloud.log"; echo >>"$FAKE/gcloud.log"
place() {{ case $1 in gs://*) echo "$FAKE/gs/${{1#gs://}}" ;; *) echo "$1" ;; esac; }}
case $name in
  'compute tpus queued-resources create')
    [[ ! -e $FAKE/slice ]] || {{ echo 'gcloud: ALREADY_EXISTS' >&2; exit 1; }}
    [[ ! -e $FAKE/create ]] || source "$FAKE/create"
    : >"$FAKE/slice"
    ;;
  'compute tpus queued-resources describe')
    [[ -e $FAKE/slice ]] || {{ echo 'gcloud: NOT_FOUND' >&2; exit 1; }}
    mapfile -t states <"$FAKE/states"
    echo "${{states[0]}}"
    if ((${{#states[@]}} > 1)); then
      printf '%s\n' "${{states[@]:1}}" >"$FAKE/states"
    fi
    ;;
  'compute tpus queued-resources delete')
    rm -rf "$FAKE/slice" "$FAKE"/worker?
    mapfile -t states <"$FAKE/states"
    echo "${{states[-1]}}" >"$FAKE/states"
    ;;
  'compute tpus tpu-vm describe') cat "$FAKE/machines" 2>/dev/null || echo READY ;;
  *tpu-vm*)
    workers=$flag_worker
    [[ $workers != all ]] || workers='0 1'
    for worker in $workers; do
      home=$FAKE/worker$worker
      mkdir -p "$home"
      case $name in
        *scp) cp "${{words[4]}}" "$home/${{words[5]#*:}}" ;;
        *ssh)
          [[ ! -e $FAKE/ssh ]] || source "$FAKE/ssh"
          (cd "$home" && HOME=$home WORKER=$worker exec bash -c "$flag_command")
          ;;
      esac
    done
    ;;
  'storage ls') [[ -e $(place "${{words[2]}}") ]] ;;
  'storage rsync')
    from=$(place "${{words[2]}}") to=$(place "${{words[3]}}")
    mkdir -p "$to" && cp -r "$from/." "$to"
    ;;
esac
"""


def install(checkout: Checkout, *states: str) -> None:
  """Puts it on PATH, and commits the checkout, which is what goes to the workers."""
  cases = ['case "${words[*]} " in']
  for name, known in FLAGS.items():
    cases.append(f"  '{name} '*) name='{name}' known='{known}' ;;")
  file = checkout.bin / 'gcloud'
  file.write_text(SCRIPT.format(cases='\n'.join(cases)))
  file.chmod(0o755)
  (checkout.path.parent / 'states').write_text('\n'.join(states or ('ACTIVE',)) + '\n')
  (checkout.path / '.gitignore').write_text('.venv\ncheckpoints\n')
  identity = ['-c', 'user.name=a', '-c', 'user.email=a@b']
  for command in (['init', '-q'], ['add', '-A'], [*identity, 'commit', '-qm', 'all']):
    subprocess.run(['git', *command], cwd=checkout.path, check=True)


def calls(checkout: Checkout) -> list[str]:
  """The command lines so far, with the temporary folder of the archive left out."""
  folder = checkout.path.parent
  lines = [line.rstrip() for line in checkout.read('gcloud.log')]
  return [
    line.replace(str(folder), 'FAKE') if 'scp' not in line else _short(line)
    for line in lines
  ]


def _short(line: str) -> str:
  words = line.split()
  words = [pathlib.Path(w).name if w.startswith('/') else w for w in words]
  return ' '.join(words)
