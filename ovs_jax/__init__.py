"""Open-vocabulary segmentation in JAX: OVSeg and CoSeg."""

import sys
from typing import Any

from ovs_jax.core import interrupts

__version__ = '0.1.0'
__all__ = ['Classifier', 'Segmenter']

if interrupts.is_command(sys.orig_argv, __name__):  # before imports that take seconds
  interrupts.end_in_one_line()


def __getattr__(name: str) -> Any:
  """Loads what is asked for on first use, so that `import ovs_jax` stays light."""
  if name == 'Segmenter':
    from ovs_jax.inference.segmenter import Segmenter

    return Segmenter
  if name == 'Classifier':
    from ovs_jax.inference.classifier import Classifier

    return Classifier
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
