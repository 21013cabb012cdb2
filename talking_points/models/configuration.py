"""Configuration of the Point Descriptor and the Point Localizer: OMG-LLaVA's, plus every choice the paper leaves open.

Each field below is one such choice; its comment quotes the paper's words, says what the default is and why.
"""

# Annotations are not postponed here: @strict checks every value against its type.

from typing import Literal

from huggingface_hub.dataclasses import strict

from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.prompt_forms import PromptForm


@strict
class TalkingPointsConfig(OmgLlavaConfig):
    """OMG-LLaVA with a Gaussian round the keypoint (descriptor) and a coordinate head (localizer)."""

    model_type = "talking_points"

    # ---- Gaussian attention mask, section 3.2
    # "we generate a Gaussian mask M centered at the keypoint": no width is given. In pixels of a 1024 frame 32 is
    # one cell of the coarsest level; smaller images want a sigma that is smaller in proportion.
    gaussian_sigma: float | int = 32.0
    # "defining a boolean attention mask": the height at which the Gaussian is cut. Only the radius,
    # sigma * sqrt(2 ln(1 / threshold)), matters: 1.18 sigma here.
    gaussian_threshold: float | int = 0.5
    # "within the Gaussian region": where a cell of a level is judged. OMG-LLaVA's nearest-neighbour resize looks at
    # the top-left pixel only and may leave a level without any cell; the keypoint's own cell is always allowed here.
    mask_resize: Literal["center", "nearest", "maxpool"] = "center"
    # "in each decoder layer": all of them when None, otherwise the first so many; later ones predict their masks.
    gaussian_layers: int | None = None
    # "centered at the keypoint": whether sigma counts pixels of the padded frame, where the encoder works, or of the
    # original image.
    gaussian_frame: Literal["padded", "original"] = "padded"
    # "When relying solely on OMG-LLaVA's standard mechanism to predict object masks" (Table 3): the ablation without
    # the Gaussian is OMG-LLaVA's own point prompt.
    keypoint_mask: Literal["gaussian", "predicted"] = "gaussian"

    # ---- what the language model is given, section 3.2
    # "The refined keypoint and region features are then projected": one token of both, as in the checkpoint, or one
    # for each.
    keypoint_tokens: Literal[1, 2] = 1
    # The placeholder of the keypoint's token is not named; <mark> is the official one for points.
    keypoint_token: Literal["<mark>", "<region>"] = "<mark>"
    # The question to the descriptor is not given. "marks" is how OMG-LLaVA's point data was asked in training: a line
    # with the marks, then the question. "region_caption" is the one question of its region-caption evaluation, in
    # place of ``question``. A ``question`` that contains {keypoint} is the whole prompt, without either form.
    prompt_form: PromptForm = "marks"
    question: str = (
        "Please describe the point of Mark 1 in detail: where its object is in the image, which part of the object it "
        "lies on, where on that part, and what it looks like there."
    )
    # Decoding is not given; OMG-LLaVA's region captions are evaluated greedily.
    max_new_tokens: int = 256

    # ---- localizer, section 3.3
    # "Please segment region1: [Description D]", followed by "<p> keypoint </p> <SEG>.". The trained token is [SEG].
    localizer_question: str = "Please segment region1: {description}"
    localizer_answer: str = "<p> keypoint </p> [SEG]."
    # "a multi-layer perceptron that maps to normalized coordinates in [0, 1]^2": 512-128-2 in the appendix, without
    # activations. "linear" leaves the range open in training and clips it in `localize`.
    coordinate_hidden_size: int = 128
    coordinate_activation: Literal["relu", "gelu"] = "relu"
    coordinate_output: Literal["sigmoid", "linear"] = "sigmoid"
    # The head's start is not given: PyTorch's default, or a last layer of zeros, which starts at the centre.
    coordinate_init: Literal["default", "centre"] = "default"
    # "normalized coordinates": by the image's own width and height, or by the side of the padded square.
    coordinate_frame: Literal["image", "padded"] = "image"
    # "mean squared error between predicted and ground-truth coordinates": mean over both coordinates, or their sum.
    coordinate_loss: Literal["mean", "sum"] = "mean"
    # "Training minimizes the mean squared error": no language-model loss beside it.
    localizer_lm_weight: float | int = 0.0

    # ---- what it was trained on
    # How features of the frozen vision path were stored, for whoever reads more of them; None before training.
    feature_dtype: Literal["float32", "bfloat16"] | None = None

    # ---- what is trained
    # "LoRA adapters while freezing the vision encoder": rank, alpha and dropout are OMG-LLaVA's.
    train_lora: bool = True
    # Section 3.4, "updating only the final two transformer blocks": only the adapters of the last so many blocks.
    lora_last_blocks: int | None = None
    # Only LoRA is listed; the official code would also train embeddings and head, 0.8B parameters.
    train_vocabulary: bool = False
    # The descriptor's projector is not mentioned, OMG-LLaVA trains it. The localizer's is "the vision-to-text
    # projection layer", although section 3.3 runs text to vision: both are trained, each has its flag.
    train_projector: bool = True
    train_text_projector: bool = True
    # Not in the paper: a model that starts from random weights has to learn all of it.
    train_language_model: bool = False
    train_vision: bool = False
