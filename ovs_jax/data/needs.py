"""What a job needs before it can start: all that is missing, in one message.

`config.needs` lists (key, what it is, commands that make it). The key is that of a path
in the configuration, such as 'init.clip', or 'dataset'.
"""

import functools

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
  missing = []
  for key, what, command in config.needs:
    if key == 'dataset':
      absent, command = _dataset_is_absent(config.dataset, command)
      place = f'{config.dataset.name}/{config.dataset.variant}'
    else:
      place = functools.reduce(getattr, key.split('.'), config)
      absent = not place or not files.place(place).exists()
    if absent:
      lines = '\n'.join(f'       {line}' for line in command.splitlines())
      missing.append(f'  {what}: {place} (--config.{key})\n{lines}')
  if missing:
    count = f'{len(missing)} of {len(config.needs)} things that it needs'
    raise FileNotFoundError(
      f'{config.name} cannot start, {count} are missing. Make them in this order:\n'
      + '\n'.join(missing)
      + f'\nOr run all of it on a tiny model and drawn pictures, in about a minute: '
      f'--config=configs/{config.name}.py:smoke'
    )


def _dataset_is_absent(dataset: Dataset, command: str) -> tuple[bool, str]:
  """Returns whether a data set is not prepared, and the command that prepares it."""
  from ovs_jax.data import load_dataset

  try:
    load_dataset(dataset)
  except FileNotFoundError as error:
    return True, f'{error}\n{command}'.rstrip()
  return False, command
