"""Checkpoints by name, which are fetched the first time."""

import os

from ovs_jax.core.files import Path, place


def located(given: Path, *, accept_licence: bool = False) -> Path:
  """Returns the directory of a checkpoint, given as such or by a name.

  Arguments and errors are those of `convert.hub.located`.
  """
  text = os.fspath(given)
  if not text.startswith('hf://'):
    where = place(text)  # refuses addresses of other kinds
    if '://' in text or where.exists():
      return given
  from ovs_jax.convert import hub  # takes half a second, and is not needed mostly

  return hub.located(given, accept_licence=accept_licence)
