"""OMG-LLaVA on transformers building blocks: no mmcv, mmdet or xtuner."""
