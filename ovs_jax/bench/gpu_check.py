"""Everything that an accelerator could prove wrong, in one command and few minutes.

    python -m ovs_jax.bench --workload=gpu_check --output=gpu_check.json

One row for each attention, training step, inference and precision, with its number; the
report is a JSON file and a Markdown table beside it. The exit code is 1 if a row does
not hold. Weights and data are drawn.
"""

import dataclasses

from ovs_jax.bench import check_attention, check_inference, check_steps
from ovs_jax.bench.checks import Checklist


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    smoke: tiny sizes, for a CPU.
    only: names of rows, with * for anything, separated by commas.
    oracles: folder of the reference implementations' stored cases, for parity.
    repeats: timed runs of each step and picture.
    seconds: after which no check is begun.
  """

  smoke: bool = False
  only: str = '*'
  oracles: str = ''
  repeats: int = 5
  seconds: float = 330.0


def build(options: Options) -> Checklist:
  """Returns the checks, first those whose failure would be the most expensive later."""
  smoke, repeats = options.smoke, options.repeats
  found = [
    *check_attention.checks(smoke=smoke),
    *check_steps.checks(smoke=smoke, repeats=repeats),
    *check_inference.checks(smoke=smoke, repeats=repeats),
    *check_inference.oracles(options.oracles),
  ]
  return Checklist(found, options.seconds).choose(options.only)
