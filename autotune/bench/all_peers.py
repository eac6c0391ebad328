"""The peers of ``mixc bench`` by name."""

from __future__ import annotations

from collections.abc import Mapping

from .block_peers import blocks
from .chosen_keys import among_all, among_chosen
from .convolution_peers import by_conv1d, by_fft, convolution
from .layer_peers import layer
from .peers import Peer, eager, flex, in_float32, package, parallel, reference
from .sdpa_peers import group_rows, sdpa

PEERS: Mapping[str, Peer] = {
    "sdpa": sdpa,
    "sdpa-fp32": in_float32(sdpa),
    "sdpa-rows": group_rows,
    "sdpa-rows-fp32": in_float32(group_rows),
    "sdpa-blocks": blocks,
    "sdpa-blocks-fp32": in_float32(blocks),
    "flex": among_chosen(flex),
    "dense": among_all(sdpa),
    "eager": eager,
    "parallel": parallel,
    "parallel-fp32": in_float32(parallel),
    "layer": layer,
    "layer-fp32": in_float32(layer),
    "fft": convolution("torch.fft", by_fft),
    "conv1d": convolution("torch conv1d", by_conv1d),
    "fla": package("fla"),
    "fla-fp32": in_float32(package("fla")),
    "transformers": package("transformers"),
    "transformers-fp32": in_float32(package("transformers")),
    "reference": reference,
}
