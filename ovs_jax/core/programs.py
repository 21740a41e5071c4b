"""Compiled programs on disk, so that a second start takes seconds."""

import os
import pathlib

import jax


def keep_programs() -> None:
  """Keeps compiled programs in ~/.cache/ovs_jax/programs.

  JAX_COMPILATION_CACHE_DIR chooses another place, and $XDG_CACHE_HOME is respected.
  """
  if not jax.config.jax_compilation_cache_dir:
    home = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser()
    jax.config.update('jax_compilation_cache_dir', str(home / 'ovs_jax' / 'programs'))
  # JAX's own limit is 1 s; a picture runs several programs that compile in less.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
