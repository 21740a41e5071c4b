"""Prints docs/configuration.md: `python -m ovs_jax.settings`."""

from ovs_jax.settings.table import page

if __name__ == '__main__':
  print(page(), end='')
