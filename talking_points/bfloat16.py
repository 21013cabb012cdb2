"""Whether bfloat16 pays on this CPU."""

from __future__ import annotations


def computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; one that has none is slower with it than with float32."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
