"""Answers questions about the hardware as a machine with NVIDIA GPUs does.

JAX then traces, lowers and exports what it would there. Nothing of it can run here.
"""

from types import SimpleNamespace
from typing import Any

import jax
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

# Compute capabilities.
CARDS = {'A100': '8.0', 'H100': '9.0'}
_KERNELS = [
  f'__cudnn$fmha{scores}Softmax{way}'
  for scores in ('', 'ScaleBias')
  for way in ('', 'Backward')
]


def pretend(monkeypatch: pytest.MonkeyPatch, capability: str | None) -> None:
  """Lets JAX find a GPU of this capability, or one that has none, until undone."""
  card = SimpleNamespace(compute_capability=capability, device_kind='pretended')
  if capability is None:
    del card.compute_capability
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'local_devices', lambda: [card])
  # What JAX asks before it takes cuDNN's kernel.
  backend = SimpleNamespace(platform_version='cuda 12090')
  bridge = SimpleNamespace(
    get_backend=lambda: backend, local_devices=lambda backend: [card]
  )
  versions = SimpleNamespace(cudnn_get_version=lambda: 91_000)
  monkeypatch.setattr(cudnn, 'xla_bridge', bridge)
  monkeypatch.setattr(cudnn, 'cuda_versions', versions)


def export(program: Any, *args: Any) -> jax.export.Exported:
  """Exports for GPUs; cuDNN's kernels are no stable interface, but all there is."""
  allowed = [jax.export.DisabledSafetyCheck.custom_call(target) for target in _KERNELS]
  return jax.export.export(program, platforms=['cuda'], disabled_checks=allowed)(*args)
