"""Checkpoints: one Orbax directory for converted and for trained weights.

A model directory has the items `params` (the tree) and `config` (JSON). A run keeps
such directories under its step numbers, with the items `train` (optimizer state) and,
where `params` are averages, `raw` (what trains) added.
Orbax writes under a temporary name and renames, so a killed save leaves the previous
checkpoint as it was. In a bucket nothing can be renamed: there a step is whole when its
commit file is written, and a model directory has a numbered folder for what was saved.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import json
import logging
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

import ovs_jax
from ovs_jax.core import attached, buckets, content
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, Place, absolute, atomic_path, place, remove
from ovs_jax.core.lookup import did_you_mean
from ovs_jax.core.tree import flatten

logging.getLogger('absl').setLevel(logging.ERROR)
_COMMITTED = '_CHECKPOINT_METADATA'
_SENT = 'commit_success.txt'  # what Orbax writes last where it cannot rename
# Of what is written, beside the items, with the version of the package. One more when
# an older version would misread it; what was written before there was one has none.
FORMAT = 1
# What Orbax raises over files that it cannot read.
_UNREADABLE = (OSError, KeyError, TypeError, AttributeError, ValueError)
NOT_FINITE = 'not_finite'  # in `config['source']`: parameters that are so on purpose

# Else Orbax cuts each replicated array into one slice per device: with eight devices,
# more time in compiling those slices than in everything else that a save does.
ocp.type_handlers.register_type_handler(
  jax.Array,
  ocp.type_handlers.ArrayHandler(use_replica_parallel=False),
  override=True,
)
# Writes NumPy arrays from where they are. A model is saved while nothing changes it,
# and a copy of a large one may not fit into memory.
ocp.type_handlers.register_type_handler(
  np.ndarray,
  ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False),
  override=True,
)


def save_model(directory: Path, params: Any, config: Mapping[str, Any]) -> None:
  """Writes parameters and configuration to `directory`, atomically.

  This process writes alone: where there are several, one of them calls this.
  """
  # Compressing weights takes two thirds of the time, holds all of them in memory once
  # more, and saves 8 % of the space.
  alone = _alone()
  handler = ocp.CompositeCheckpointHandler(
    composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
    params=sealed(
      ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=alone)
    ),
    config=sealed(ocp.JsonCheckpointHandler(multiprocessing_options=alone)),
  )
  items = ocp.args.Composite(
    params=ocp.args.PyTreeSave(params), config=ocp.args.JsonSave(dict(config))
  )
  target = directory = absolute(place(directory))
  earlier = [] if _is_local(directory) else _saved(directory)
  if not _is_local(directory):
    target = directory / str(1 + max([-1, *(int(p.name) for p in _steps(directory))]))
  with atomic_path(target, last=_SENT) as temporary:
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as writer:
      writer.save(temporary, items, custom_metadata=stamp())
    attached.write(temporary, config)
  for path in earlier:
    remove(path)


def _saved(directory: Place) -> list[Place]:
  """Lists what belongs to earlier models in a directory, what commits them first."""
  items = [directory / name for name in (_SENT, _COMMITTED, 'params', 'config')]
  items += [path for path in _inside(directory) if attached.is_one(path.name)]
  return [*items, *(p / _SENT for p in _steps(directory)), *_steps(directory)]


def _steps(directory: Place) -> list[Place]:
  return [p for p in _inside(directory) if p.name.isdigit() and p.is_dir()]


def _inside(directory: Place) -> list[Place]:
  return [*directory.iterdir()] if directory.is_dir() else []


def _is_local(path: Place) -> bool:
  return isinstance(path, pathlib.Path)


def _is_whole(path: Place) -> bool:
  return (path / (_COMMITTED if _is_local(path) else _SENT)).is_file()


def sealed(handler: Any) -> Any:
  """Lets one of Orbax's handlers write down what its files hold, at the end.

  A method of the object, as Orbax looks its handlers up by class.
  """
  finalize = handler.finalize

  def and_seal(directory: Any) -> None:
    finalize(directory)
    content.seal(directory)

  handler.finalize = and_seal
  return handler


def check_bytes(path: Place, what: str, items: Iterable[str]) -> None:
  """Compares items of a checkpoint with what was written.

  Raises:
    UserError: bytes have changed, or are missing.
  """
  found = []
  try:
    found = [content.check_seal(path / item) for item in items]
  except UserError as error:
    raise broken(path, what, error) from error
  if not all(found) and _is_local(path):
    print(
      f'note: the {what} {path} is of a version that did not write down what its files '
      'hold; damage would not be noticed',
      file=sys.stderr,
    )


def _copy(item: Place) -> buckets.Copy:
  """Returns an item of a checkpoint on this machine; one that came is compared.

  Raises:
    OSError, UserError: it cannot be read, or other bytes came than were written.
  """
  copy = buckets.Copy(item)
  if not _is_local(item):
    content.check_seal(copy.path, named=item)
  return copy


def stamp() -> dict[str, Any]:
  """What is written beside the items of every checkpoint."""
  return {'format': FORMAT, 'ovs_jax': ovs_jax.__version__}


def beside(path: Place, what: str) -> dict[str, Any]:
  """Reads what was written beside the items, of a format that is known.

  Raises:
    ValueError: it is newer, or cannot be read.
  """
  try:
    found = json.loads((path / _COMMITTED).read_text()).get('custom_metadata') or {}
  except (OSError, ValueError, AttributeError) as error:
    raise broken(path, what, error) from error
  if found.get('format', 0) > FORMAT:
    raise UserError(
      f'the {what} {path} has format {found["format"]}, written by ovs_jax '
      f'{found.get("ovs_jax")}; ovs_jax {ovs_jax.__version__} reads formats up to '
      f'{FORMAT}: take a newer one'
    )
  return found


def _alone() -> ocp.options.MultiprocessingOptions:
  """Lets a process read or write a model without waiting for the others."""
  index = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=index,
    active_processes={index},
    barrier_sync_key_prefix=f'process_{index}',
  )


def _reader(handler: Any) -> ocp.Checkpointer:
  return ocp.Checkpointer(handler, multiprocessing_options=_alone())


def load_model(
  directory: Path, *, kind: str | None = None, what: str = 'checkpoint'
) -> tuple[Any, dict[str, Any]]:
  """Reads parameters (NumPy arrays) and configuration.

  Args:
    directory: a model directory, or a run, of which the newest step is taken.
    kind: the expected `config['model']`; None takes any.
    what: named in errors.

  Raises:
    FileNotFoundError: there is no such directory.
    ValueError: it is not a checkpoint, not complete, damaged, of another kind of model,
      or has parameters that are NaN or infinite.
  """
  config = load_config(directory, kind=kind, what=what)
  path = resolve(directory, what=what)
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    # Beside the reading, most of which waits for memory and not for a core.
    checked = pool.submit(check_bytes, path, what, ['params'])
    try:
      params = _read_params(path)
    except Exception as error:
      checked.result()  # knows better what is wrong
      if isinstance(error, _UNREADABLE):
        raise broken(path, what, error) from error
      raise
    checked.result()
  if not config.get('source', {}).get(NOT_FINITE):
    _check_finite(path, what, params)
  return params, config


def _read_params(path: Place) -> Any:
  copy = _copy(path / 'params')
  with _reader(ocp.PyTreeCheckpointHandler()) as reader:
    tree = reader.metadata(copy.path).item_metadata.tree
    # As NumPy arrays: the devices of the writer need not exist here.
    kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return reader.restore(copy.path, ocp.args.PyTreeRestore(restore_args=kinds))


def _check_finite(path: Place, what: str, params: Any) -> None:
  leaves = flatten(params)
  if bad := sorted(name for name, x in leaves.items() if not content.is_finite(x)):
    more = f' and {len(bad) - 3} more' if len(bad) > 3 else ''
    raise UserError(
      f'{len(bad)} of {len(leaves)} parameters of the {what} {path} are NaN or '
      f'infinite: {", ".join(bad[:3])}{more}. Its training failed; take an earlier '
      'step, or convert with --allow_not_finite what is meant to be so'
    )


def load_config(
  directory: Path, *, kind: str | None = None, what: str = 'checkpoint'
) -> dict[str, Any]:
  """Reads the configuration alone; arguments and errors are those of `load_model`."""
  path = resolve(directory, what=what)
  beside(path, what)
  try:
    content.check_seal(path / 'config')
    copy = _copy(path / 'config')
    with _reader(ocp.JsonCheckpointHandler()) as reader:
      config = dict(reader.restore(copy.path, ocp.args.JsonRestore()))
  except _UNREADABLE as error:
    raise broken(path, what, error) from error
  attached.offer(path, config)
  if kind is not None and config.get('model') != kind:
    raise UserError(
      f'the {what} {path} holds a {config.get("model")!r} model; a {kind!r} model '
      'was expected'
    )
  return config


def version(directory: Path, *, what: str = 'checkpoint') -> list[Any]:
  """Returns where a model is and what changes when it is written anew, as JSON."""
  path = resolve(directory, what=what)
  if isinstance(path, pathlib.Path):
    return [str(path), path.stat().st_mtime_ns]
  return [str(path), (path / _COMMITTED).read_text()]  # has the time


def identity(directory: Path, *, what: str = 'checkpoint') -> str:
  """Returns a short hash of weights and configuration; of copies it is the same.

  In a bucket it is one of the note that belongs to them, which each writing makes anew.
  Errors are those of `load_model`.
  """
  return _identity(*version(directory, what=what), what)


@functools.lru_cache(maxsize=64)
def _identity(path: str, written: Any, what: str) -> str:
  if isinstance(written, str):
    return hashlib.sha256(written.encode()).hexdigest()[:16]
  params, config = load_model(path, what=what)
  return content.of_arrays(flatten(params), config)


def skip_noise(problem: Any) -> None:
  """An unraisable hook: skips what Orbax's threads say after a failed reading."""
  if 'Event loop is closed' not in str(problem.exc_value):
    sys.__unraisablehook__(problem)


def resolve(directory: Path, *, what: str = 'checkpoint') -> Place:
  """Returns the model directory itself, or the newest step of a run."""
  path = absolute(place(directory))
  with buckets.answering(path):
    found = path.is_dir()
  if not found:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise FileNotFoundError(
      f'{what} {path} not found.{did_you_mean(path.name, siblings)} Give the directory '
      'that training, converting or the quickstart wrote'
    )
  if (path / 'params').is_dir() and _is_whole(path):
    return path
  for folder in (path, path / 'checkpoints'):
    if steps := [p for p in _steps(folder) if _is_whole(p)]:
      return max(steps, key=lambda p: int(p.name))
  if (path / 'model').is_dir():
    return resolve(path / 'model', what=what)
  inside = sorted(str(p.parent) for p in path.glob('*/model') if p.is_dir())
  hint = f'. Inside it are checkpoints: {", ".join(inside)}' if inside else ''
  raise UserError(
    f'{path} is not a {what}, or was not written to its end: it has no complete '
    f'"params" and "config"{hint}'
  )


def broken(path: Place, what: str, error: Exception) -> ValueError:
  """Returns an error that says that a checkpoint is damaged, and why."""
  first = (str(error).splitlines() or [type(error).__name__])[0][:200]
  return UserError(
    f'the {what} {path} cannot be read; it is damaged or was not written to its end '
    f'({first})'
  )


def verify(directory: Path) -> list[Place]:
  """Compares all files of a model, or of all steps of a run, with what was written.

  Returns:
    The checkpoints that are as they were.

  Raises:
    FileNotFoundError, UserError: there is none, one is damaged, or one was not sealed.
  """
  newest = resolve(directory)
  found = sorted(p for p in _steps(newest.parent) if _is_whole(p)) or [newest]
  for path in found:
    for item in sorted(p for p in path.iterdir() if p.is_dir()):
      copy = buckets.Copy(item)
      if not content.check_seal(copy.path, named=item):
        raise UserError(
          f'{item} is of a version that did not write down what its files hold, or is '
          'a step that a training has written to a bucket; it cannot be verified'
        )
  return found


def _main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.core.checkpoint',
    description='Verifies that checkpoints hold the bytes that were written.',
  )
  parser.add_argument('checkpoint', help='a model directory, or a run')
  try:
    for path in verify(parser.parse_args().checkpoint):
      print(f'{path}: all bytes are as they were written')
  except (UserError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  _main()
