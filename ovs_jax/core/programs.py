"""Compiled programs on disk, so that a second start takes seconds."""

import os

import jax

from ovs_jax.core.files import local


def compile_sooner() -> None:
  """Lets programs compile in less time, and run in more; for runs of a few steps.

  Call it before the first program. JAX 0.10 has an older code generator for CPUs that
  needs a third less time; later versions have one only, and know no flag for it.
  """
  jax.config.update('jax_disable_most_optimizations', True)
  if jax.__version__.startswith('0.10.'):
    flags = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{flags} --xla_cpu_use_fusion_emitters=false'


def keep_programs() -> None:
  """Keeps compiled programs in ~/.cache/ovs_jax/programs.

  JAX_COMPILATION_CACHE_DIR chooses another place, and $XDG_CACHE_HOME is respected.
  """
  if not jax.config.jax_compilation_cache_dir:
    home = local(os.environ.get('XDG_CACHE_HOME', '~/.cache'))
    jax.config.update('jax_compilation_cache_dir', str(home / 'ovs_jax' / 'programs'))
  # JAX's own limit is 1 s; a picture runs several programs that compile in less.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
