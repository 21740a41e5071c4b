"""The modules of a Scenic that is somewhere else on the path."""

import importlib
import importlib.util
from typing import Any


def load(name: str) -> Any:
  """Returns a module of Scenic.

  Raises:
    ImportError: Scenic is not there, or PyPI's project of the same name is.
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
  return importlib.import_module(name)
