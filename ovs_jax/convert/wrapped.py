"""Checkpoints of models inside other models: the names that wrappers put before all."""

import dataclasses
from collections.abc import Callable

from ovs_jax.convert.reader import Checkpoint
from ovs_jax.convert.tensors import Tensors

# torch.compile, DataParallel, Lightning modules and averages name what they hold so.
WRAPPERS = ('_orig_mod', 'module', 'model', 'net', 'ema_model', 'ema', 'averaged_model')
_SCALARS = ('logit_scale', 'logit_bias')  # which some programs store as a vector of one


def unwrap(
  checkpoint: Checkpoint, known: Callable[[Checkpoint], bool]
) -> tuple[Checkpoint, str]:
  """Takes the words of wrappers from the names, if all of them begin with these.

  Args:
    checkpoint: what was read.
    known: whether a family recognises a checkpoint; then its names stay.

  Returns:
    The checkpoint, and the words that were taken away, such as 'model.'; '' if none.
  """
  prefix, found = '', checkpoint
  while not known(found):
    word = next(iter(found.tensors), '').partition('.')[0] + '.'
    common = all(name.startswith(word) for name in found.tensors)
    if not common or word.removesuffix('.') not in WRAPPERS:
      return checkpoint, ''
    prefix += word
    found = _without(found, word)
  return _with_scalars(found), prefix


def without(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
  """Returns what `unwrap` did when it took away these words."""
  return _with_scalars(_without(checkpoint, prefix))


def _without(checkpoint: Checkpoint, word: str) -> Checkpoint:
  tensors = checkpoint.tensors
  renamed = {name.removeprefix(word): tensors.entry(name) for name in tensors}
  return dataclasses.replace(checkpoint, tensors=Tensors(renamed))


def _with_scalars(checkpoint: Checkpoint) -> Checkpoint:
  tensors = checkpoint.tensors
  vectors = [
    name
    for name, shape in tensors.shapes.items()
    if shape == (1,) and name.rpartition('.')[2] in _SCALARS
  ]
  scalars = {name: tensors[name].reshape(()) for name in vectors}
  return dataclasses.replace(checkpoint, tensors=Tensors(tensors, scalars))
