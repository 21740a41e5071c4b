"""All commands under one name: `ovs-jax predict`, or `python -m ovs_jax predict`."""

import runpy
import sys

from ovs_jax.core import interrupts
from ovs_jax.core.lookup import did_you_mean

# By name: the module that is run, arguments before those given, and what it does.
COMMANDS = {
  'predict': ('ovs_jax.predict', (), 'segment pictures by names'),
  'classify': ('ovs_jax.predict', ('--classify',), 'name whole pictures with a CLIP'),
  'train': (
    'ovs_jax.main',
    (),
    'run a config: train, mine, evaluate, report',
  ),
  'prepare': ('ovs_jax.data.prepare', (), 'build a data set, or one of your own'),
  'adapt': ('ovs_jax.adapt', (), 'train an OVSeg on photos of your own'),
  'evaluate': (
    'ovs_jax.adapt.evaluate',
    (),
    'score a checkpoint on your own photos',
  ),
  'assemble': ('ovs_jax.adapt.assemble', (), 'make an OVSeg of its parts'),
  'convert': ('ovs_jax.convert', (), 'convert checkpoints of others, and back'),
  'export': (
    'ovs_jax.export',
    (),
    'write an OVSeg that runs without this package',
  ),
  'verify': (
    'ovs_jax.core.checkpoint',
    (),
    "compare a checkpoint's bytes with its seal",
  ),
  'explain': ('ovs_jax.explain', (), 'show how an OVSeg came to its labels'),
  'demo': ('ovs_jax.demo', (), 'serve a page to try a model on'),
  'bench': ('ovs_jax.bench', (), 'measure speed and memory'),
}


def usage() -> str:
  """Returns what `ovs-jax --help` prints."""
  lines = [f'  {name:9} {what}' for name, (_, _, what) in COMMANDS.items()]
  more = 'ovs-jax COMMAND --help tells its options; ovs-jax train --config=quickstart'
  return '\n'.join(['usage: ovs-jax COMMAND ...', '', *lines, '', f'{more} begins.'])


def main() -> None:
  """Runs a command; ends the process as it does."""
  interrupts.end_in_one_line()
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('-h', '--help'):
    print(usage())
    return
  if name not in COMMANDS:
    known = ', '.join(COMMANDS)
    near = did_you_mean(name, COMMANDS)
    print(f'error: {name!r} is no command of {known}.{near}', file=sys.stderr)
    sys.exit(2)
  module, before, _ = COMMANDS[name]
  sys.argv[:2] = [f'ovs-jax {name}']
  sys.argv[1:1] = before
  runpy.run_module(module, run_name='__main__', alter_sys=False)


if __name__ == '__main__':
  main()
