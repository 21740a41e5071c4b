"""The modules of a Scenic that is somewhere else on the path."""

import importlib
import importlib.util
from typing import Any


def load(name: str) -> Any:
  """Returns a module of Scenic.

  Raises:
    ImportError: Scenic is not there, PyPI's project of the same name is, or something
      that Scenic needs is not.
  """
  if importlib.util.find_spec('scenic') is None:
    raise ImportError(
      'google-research/scenic is not on PYTHONPATH; clone '
      'https://github.com/google-research/scenic and add the clone to PYTHONPATH'
    )
  if importlib.util.find_spec('scenic.train_lib') is None:
    raise ImportError(
      "the module 'scenic' that Python finds is not google-research/scenic, but "
      "probably PyPI's package of that name, which describes driving scenarios; pip "
      'uninstall scenic, clone https://github.com/google-research/scenic and add the '
      'clone to PYTHONPATH'
    )
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name is None or error.name.split('.')[0] == 'scenic':
      raise
    raise ImportError(
      f'Scenic needs the module {error.name}, which is not installed; most of what it '
      f'needs has the name of its module: pip install {error.name.split(".")[0]}'
    ) from error
