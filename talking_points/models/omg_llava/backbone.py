"""The ConvNeXt trunk of OpenCLIP's ConvNeXt-L, as OMG-Seg uses it: four raw stage outputs."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ConvNextConfig
from transformers.models.convnext.modeling_convnext import ConvNextEmbeddings, ConvNextEncoder


class OmgBackbone(nn.Module):
    """ConvNeXt without its head: ``ConvNextBackbone`` normalises each output, OMG-Seg reads them as they are."""

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__()
        self.embeddings = ConvNextEmbeddings(config)
        self.encoder = ConvNextEncoder(config)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Pixels (B, 3, H, W) to the stage outputs [(B, C_s, H / stride_s, W / stride_s)], finest first."""
        features = self.embeddings(pixel_values)
        outputs = []
        for stage in self.encoder.stages:
            features = stage(features)
            outputs.append(features)
        return outputs
