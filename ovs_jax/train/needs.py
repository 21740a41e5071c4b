"""What a job needs before it can start: all that is missing, in one message.

`config.needs` lists (key, what it is, commands that make it). The key is that of a path
in the configuration, such as 'init.clip', or 'dataset'; of a pipeline's stage with
'stages.STAGE.' before it.
"""

import dataclasses
import functools
from typing import Any

from ovs_jax.core import files
from ovs_jax.core.tree import flatten
from ovs_jax.settings import Dataset, Settings

# What can be given as an address of some kinds only, or of none; other keys take all.
_SCHEMES = {
  'dataset.data_dir': ('gs',),  # TensorFlow reads these, and knows no other kind
  'init.pairs': ('gs',),
  'init.labelled': ('gs',),
  'dataset.variant': (),
  'mining.pipeline': (),
  'phrases.table': (),
  'slots.cache': (),
  'suite.predictions': (),
}


_OPTIONAL = ('init.backbone',)  # '' does without
_DRAWN = 'scenes'  # made when it is asked for
# Modes that read data sets; training on pairs or on a table of one's own does not.
_READ_DATA = ('evaluate', 'benchmark', 'evaluate_systems', 'mine')


def check_needs(config: Settings) -> None:
  """Returns if everything is there.

  Raises:
    FileNotFoundError: something is not; says what, and the commands in their order.
    ValueError: an address that cannot be served.
  """
  for path, value in flatten(config.to_dict()).items():
    if isinstance(value, str):
      key = '.'.join(path.split('/')[-2:])
      files.place(value, schemes=_SCHEMES.get(key, files.SCHEMES))
  missing, wanted = [], 0
  for key, what, command in config.needs:
    for value in _values(config, key):
      wanted += 1
      if isinstance(value, Dataset):
        absent, lines = _dataset_is_absent(value, command)
        place = f'{value.name}/{value.variant}'
      else:
        without = not value and key.endswith(_OPTIONAL)
        place, lines = value, command
        absent = not (without or (value and files.place(value).exists()))
      if absent:
        lines = '\n'.join(f'       {line}' for line in lines.splitlines())
        missing.append(f'  {what}: {place} (--config.{key})\n{lines}')
  if missing:
    count = f'{len(missing)} of {wanted} things that it needs'
    raise FileNotFoundError(
      f'{config.name} cannot start, {count} are missing. Make them in this order:\n'
      + '\n'.join(missing)
      + f'\nOr run all of it on a tiny model and drawn pictures, in about a minute: '
      f'--config=configs/{config.name}.py:smoke'
    )


def _values(config: Settings, key: str) -> list[str | Dataset]:
  """Returns what a key such as 'init.clip' or 'stages.ft.init.clip' names.

  Of 'suite.datasets' these are the data sets.
  """
  parts = key.split('.')
  while parts[0] == 'stages' and len(parts) > 2:
    config, parts = config.stages[parts[1]], parts[2:]
  value = functools.reduce(getattr, parts, config)
  if parts != ['suite', 'datasets']:
    return [value]
  named = [text.partition(':')[0].partition('/') for text in value]
  return [
    dataclasses.replace(config.dataset, name=name, variant=variant or 'default')
    for name, _, variant in named
  ]


def datasets_of(config: Settings) -> list[tuple[str, Any]]:
  """Returns the data sets that a job reads, if they are there: (key, builder)."""
  from ovs_jax.data import load_dataset

  of_pairs = config.init.pairs or config.init.labelled or config.phrases.table
  reads = config.mode in _READ_DATA or (config.mode == 'train' and not of_pairs)
  key = 'suite.datasets' if config.mode == 'benchmark' else 'dataset'
  found = []
  for dataset in _values(config, key) if reads else []:
    where = files.place(dataset.data_dir, schemes=('gs',)) / dataset.name
    if dataset.name == _DRAWN and not (where / dataset.variant).exists():
      continue  # whoever reads it draws it; not everything that trains does
    try:
      found.append(
        (f'{key}: {dataset.name}/{dataset.variant}', load_dataset(dataset)[1])
      )
    except FileNotFoundError:
      continue  # the job says so, with what it needs it for
  return found


def _dataset_is_absent(dataset: Dataset, command: str) -> tuple[bool, str]:
  """Returns whether a data set is not prepared, and the command that prepares it."""
  from ovs_jax.data import load_dataset

  try:
    load_dataset(dataset)
  except FileNotFoundError as error:
    return True, f'{error}\n{command}'.rstrip()
  return False, command
