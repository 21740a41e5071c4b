"""`python -m ovs_jax.convert`; see `ovs_jax.convert.command`."""

import sys

from ovs_jax.convert.command import main

if __name__ == '__main__':
  sys.exit(main())
