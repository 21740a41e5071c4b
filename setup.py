"""Adds configs/ to the installed package, where `--config=NAME` finds it."""

from setuptools import find_namespace_packages, setup

CONFIGS = 'ovs_jax.packaged.configs'

setup(
  packages=[*find_namespace_packages(include=['ovs_jax*']), CONFIGS],
  package_dir={CONFIGS: 'configs'},
)
