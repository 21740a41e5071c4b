"""Open-vocabulary segmentation in JAX: OVSeg and CoSeg."""

from typing import Any

__version__ = '0.1.0'
__all__ = ['Segmenter']


def __getattr__(name: str) -> Any:
  """Loads `Segmenter` on first use, so that `import ovs_jax` stays light."""
  if name == 'Segmenter':
    from ovs_jax.segmenter import Segmenter

    return Segmenter
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
