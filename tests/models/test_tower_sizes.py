"""Published sizes of towers: as many parameters as where they come from."""

import dataclasses
import json

import jax
import pytest

from ovs_jax.core.tree import count_parameters
from ovs_jax.models.clip import PRESETS, ClipConfig, init_clip


# open_clip 3.3.0 has as many for these configurations.
@pytest.mark.parametrize(
  'name, count',
  [
    ('laion_h14', 986_109_441),
    ('laion_g14', 1_366_678_273),
    ('laion_bigg14', 2_539_567_105),
    ('metaclip2_l14', 581_747_969),
    ('metaclip2_h14', 1_858_783_745),
    ('metaclip2_bigg14', 3_630_409_985),
    ('dfn5b_h14_378', 986_714_881),
    ('siglip_b16', 203_155_970),
    ('siglip_l16_256', 652_150_786),
    ('siglip_so400m14_378', 877_960_498),
    ('siglip2_b16', 375_187_970),
    ('siglip2_l16_256', 881_526_786),
    ('siglip2_so400m16_384', 1_136_039_602),
    ('siglip2_gopt16_384', 1_871_885_426),
    ('clipa_l14', 414_210_561),
    ('clipa_h14', 968_235_009),
    ('mobileclip2_l14', 427_617_281),
    ('pe_t16_384', 69_546_113),
    ('pe_s16_384', 87_188_225),
    ('pe_b16', 447_660_545),
    ('pe_l14_336', 671_138_817),
    ('pe_g14_448', 2_419_267_841),
    ('eva02_b16', 149_691_137),
    ('eva02_l14', 427_755_457),
    ('eva02_l14_336', 428_083_137),
    ('eva02_e14', 4_704_589_569),
    ('eva02_e14_plus', 5_044_889_089),
    ('convnext_base_w', 179_385_345),
    ('convnext_large_d', 351_772_609),
    ('convnext_large_d_320', 351_772_609),
    ('convnext_xxlarge', 1_200_576_385),
    # As transformers 5.24.0 without layer scales and the token of hidden patches.
    ('tipsv2_b14', 195_929_089),
    ('tipsv2_l14', 487_890_945),
    ('tipsv2_so400m14', 861_663_457),
    ('tipsv2_g14', 1_524_961_281),
  ],
)
def test_published_sizes(name: str, count: int) -> None:
  config = PRESETS[name]
  shapes = jax.eval_shape(lambda k: init_clip(config, k), jax.random.key(0))
  assert count_parameters(shapes) == count
  stored = json.loads(json.dumps(dataclasses.asdict(config)))
  assert ClipConfig.from_dict(stored) == config
