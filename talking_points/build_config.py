"""The configuration of a build: every setting is documented where it is declared.

``NOT_IN_FINGERPRINT`` is the one table of fields that cannot change a dataset and therefore never invalidate one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from talking_points.config import Section, suggest
from talking_points.output_names import readable_output
from talking_points.redaction import hide_secrets, is_variable_name, protect
from talking_points.runner_config import RunnerConfig, database_url, runner_as_section
from talking_points.source_names import buildable_sources

BackendName = Literal[
    "rules", "transformers", "vllm", "openai", "llama_cpp", "omg_llava", "vllm_server", "llama_server"
]
MANAGED: tuple[BackendName, ...] = ("vllm_server", "llama_server")
"""The backends that start a server of their own."""


STEP_NAMES = ("object_caption", "local_caption", "generate", "refine")
"""The sections of a build that are text steps."""


class SourceConfig(Section):
    """One part-annotated dataset. A source without a root is left out of the build."""

    root: Path | None = None
    points: int | None = Field(
        default=None,
        ge=1,
        description="points wanted at most; sources give equally many unless sampling.equal_shares is false",
    )
    split: str | None = Field(default=None, description="use one split of the source only")
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="further reader options, e.g. instances of PASCAL-Part"
    )


MAX_DETECTION_PIXELS = 4_000_000


class KeypointConfig(Section):
    """SIFT detection and the rule that picks one keypoint (paper section 3.1; Lowe 1999)."""

    per: Literal["image", "part"] = Field(
        default="image", description="highest response per image inside any part (the paper), or one per part"
    )
    contrast_threshold: float = Field(default=0.04, gt=0, description="first pass; OpenCV's default")
    low_contrast_threshold: float = Field(
        default=0.005, gt=0, description="second pass, for parts the first leaves empty"
    )
    edge_threshold: float = Field(default=10.0, gt=1)
    octave_layers: int = Field(default=3, ge=1)
    sigma: float = Field(default=1.6, gt=0)
    min_part_area: int = Field(default=64, ge=1, description="pixels; smaller parts get no keypoint")
    border_margin: int = Field(default=4, ge=0, description="pixels between a keypoint and the image border")
    max_pixels: int = Field(
        default=MAX_DETECTION_PIXELS,
        ge=10_000,
        exclude_if=lambda pixels: pixels == MAX_DETECTION_PIXELS,  # fingerprints of before it existed stay
        description="larger images are reduced for detection, which takes 0.22 GiB of memory a megapixel; points get"
        " the flag reduced_detection",
    )
    places: Literal["fine", "coarse"] = Field(
        default="fine", description="words for places: coarse names one of three cells per axis, fine also how far"
    )


class SamplingConfig(Section):
    """Balance over sources and categories, and the train/test split (paper: 17K/4K)."""

    train_parts: int = Field(default=17, ge=1)
    test_parts: int = Field(default=4, ge=0)
    near_duplicate_bits: int = Field(
        default=6,
        ge=0,
        le=32,
        description="images whose 64-bit perceptual hashes differ in at most so many bits share a side",
    )
    reserve: float = Field(
        default=0.0,
        ge=0,
        le=4,
        exclude_if=lambda share: share == 0,  # fingerprints of before it existed stay
        description="further points that are described for each source, relative to its share: they take the place of"
        " rows that are rejected, and are left out where they are not needed",
    )
    equal_shares: bool = Field(default=True, description="no source gives more points than the smallest one")


class CropConfig(Section):
    """The Gaussian-weighted crop around the keypoint that the local captioner sees (paper section 3.1)."""

    part_scale: float = Field(default=1.0, gt=0, description="side relative to the longer side of the part's box")
    min_side: int = Field(default=96, ge=16, description="pixels; smaller crops are out of the models' range")
    max_side: int = Field(default=336, ge=16, description="pixels; larger crops are no longer local")
    sigma: float = Field(default=0.3, gt=0, description="of the Gaussian, relative to the side")
    surround: Literal["black", "grey", "blur"] = Field(default="blur", description="what the Gaussian fades into")
    size: int = Field(default=336, ge=16, description="side in pixels after resizing for the model")


class RequestForm(Section):
    """How a request is written for one endpoint: servers of the OpenAI API differ in what they accept."""

    max_tokens_as: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="the field that bounds an answer; newer models of OpenAI refuse the older"
    )
    temperature: bool = Field(default=True, description="send the temperature; some models take their own only")
    seed: bool = Field(default=True, description="send the seed; some servers refuse it")
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="further fields of every request's body, e.g. reasoning_effort"
    )
    image_format: Literal["png", "jpeg"] = Field(
        default="png", description="png: pixel for pixel; jpeg (quality 95): a quarter of the bytes and of the time"
    )


class ServerConfig(Section):
    """The server that a step starts for itself (backends ``vllm_server`` and ``llama_server``)."""

    environment: str | None = Field(
        default=None,
        description="virtual environment, or program, that serves the model; default: what 'make vllm-env' and"
        " 'make llama-env' leave in build/",
    )
    command: tuple[str, ...] = Field(
        default=(),
        description="the whole command instead, e.g. of a container, in words; {model}, {revision}, {host}, {port} and"
        " {name} are replaced, and VLLM_API_KEY holds the key that it has to ask for",
    )
    stop_command: tuple[str, ...] = Field(
        default=(), description="what ends a container besides, e.g. [docker, kill, '{name}']"
    )
    startup_seconds: float = Field(default=1800.0, gt=0, description="until it answers; a 70B model loads for minutes")
    restarts: int = Field(default=3, ge=0, description="after crashes, before the build gives up")
    variables: dict[str, str] = Field(default_factory=dict, description="environment variables beside the inherited")


class BatchConfig(Section):
    """How a step's requests go through a provider's batch API: as files, answered within hours, at a lower price."""

    max_requests: int = Field(default=50_000, ge=1, description="requests in one file at most")
    max_megabytes: float = Field(default=190.0, gt=0, description="size of one file at most, in 10^6 bytes")
    completion_window: str = Field(default="24h", description="what the provider is asked for")
    url: str = Field(default="/v1/chat/completions", pattern="^/", description="the path that every request names")
    discount: float = Field(default=0.5, ge=0, le=1, description="share of the prices that the provider takes off")
    at_once: int = Field(default=20, ge=1, description="batches that the provider has at a time")
    poll: float = Field(default=60.0, gt=0, description="longest time between two looks at the batches, in seconds")
    wait: bool = Field(default=True, description="wait for the answers; false: submit, end, and collect in a later run")
    offline: bool = Field(
        default=False, description="only write the files; their answers are put beside them, e.g. by vLLM's run_batch"
    )
    cancel_on_stop: bool = Field(default=False, description="cancel the batches when the build is stopped")


class StepConfig(Section):
    """One text step and the backend that answers it."""

    backend: BackendName = "rules"
    model: str | None = Field(default=None, description="model id, folder or GGUF file")
    revision: str | None = Field(
        default=None, description="commit, tag or branch; resolved to a commit in the provenance"
    )
    prompt: str | None = Field(default=None, description="template name or path; default: the step's own")
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=256, ge=8)
    structured: bool = Field(default=False, description="ask for JSON by guided decoding")
    batch_size: int = Field(default=16, ge=1)
    concurrency: int = Field(default=16, ge=1, description="requests in flight against a server")
    timeout: float = Field(default=120.0, gt=0, description="seconds for one request")
    endpoint: str | None = Field(default=None, description="base URL of an OpenAI-compatible server")
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="name of the variable that holds the key, never the key"
    )
    device: str = "auto"
    dtype: str = "auto"
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the engine, e.g. quantization")
    request: RequestForm = Field(default=RequestForm(), description="the form of requests to a server")
    server: ServerConfig = Field(default=ServerConfig(), description="how vllm_server and llama_server are started")
    batch: BatchConfig | None = Field(
        default=None, description="backend 'openai': send requests as batches; true takes the defaults"
    )

    @field_validator("batch", mode="before")
    @classmethod
    def _on_or_off(cls, value: object) -> object:
        return {True: BatchConfig(), False: None}[value] if isinstance(value, bool) else value

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str) -> str:
        if not is_variable_name(value):
            protect(value)
            raise ValueError(
                "expected the name of an environment variable, such as OPENAI_API_KEY, and found what may be the key "
                "itself: put the key into a variable and name that one here"
            )
        return value

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not set: datasets from before these sections existed keep their fingerprint."""
        values: dict[str, Any] = dump(self)
        for name, unset in (("request", RequestForm()), ("server", ServerConfig()), ("batch", None)):
            if getattr(self, name) == unset:
                values.pop(name, None)
        return values

    @model_validator(mode="after")
    def _needs(self) -> StepConfig:
        if self.backend != "rules" and not self.model:
            raise ValueError(f"backend '{self.backend}' needs a model: set .model to a model id, a folder or a file")
        if self.backend == "openai" and not self.endpoint and not (self.batch and self.batch.offline):
            raise ValueError("backend 'openai' needs .endpoint, the server's base URL, e.g. http://127.0.0.1:8000/v1")
        if self.backend not in ("openai", *MANAGED) and self.request != RequestForm():
            raise ValueError(f"request describes what is sent to a server: backend '{self.backend}' sends nothing")
        if self.backend not in MANAGED and self.server != ServerConfig():
            raise ValueError(
                f"server describes what {' and '.join(MANAGED)} start: backend '{self.backend}' starts none"
            )
        if self.backend != "openai" and self.batch:
            raise ValueError(f"batch is for backend 'openai': backend '{self.backend}' answers at once")
        return self


class JudgeConfig(StepConfig):
    """The optional judge of finished descriptions: a model that is asked for a score, or the Point Localizer."""

    by: Literal["model", "localizer"] = Field(
        default="model",
        description="model: asks .backend for a score; localizer: .model is a Point Localizer, and the score is one"
        " less the distance of the point that it finds from the true one",
    )
    scale: tuple[int, int] = Field(default=(1, 5), description="of by=model: lowest and highest score")
    shows: Literal["text", "crop", "image"] = Field(
        default="text",
        description="of by=model, beside the text and the facts: the crop around the point, or the image with a circle",
    )
    normalizer: Literal["image_wh", "bbox_max_side"] = Field(
        default="image_wh", description="of by=localizer: what a distance is divided by, as in evaluation"
    )
    reject_below: float | None = Field(default=None, description="reject rows with a lower score; default: none")
    max_tokens: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _can_judge(self) -> JudgeConfig:
        if self.by == "localizer":
            if not self.model:
                raise ValueError("a judge by localizer needs .model, the folder or repository of a Point Localizer")
            if self.backend != "rules":
                raise ValueError(f"a judge by localizer asks no backend: leave out .backend, found '{self.backend}'")
            least, most = 0, 1
        else:
            if self.backend == "rules":
                raise ValueError("a judge by model needs .backend and .model: the rules compose texts and judge none")
            least, most = self.scale
            if not least < most <= least + 100:
                raise ValueError(f"scale: expected a lower and a higher whole number, found {least} and {most}")
        if self.reject_below is not None and not least < self.reject_below <= most:
            raise ValueError(
                f"reject_below: expected more than {least} and at most {most}, found {self.reject_below:g}"
            )
        return self


class VerificationConfig(Section):
    """What a description must satisfy, and how often a failing one is written again."""

    min_words: int = Field(default=20, ge=1)
    max_words: int = Field(default=140, ge=1)
    max_sentences: int = Field(default=1, ge=1)
    require_look: bool = Field(default=True, description="level 4, the look of the point, must be there")
    attempts: int = Field(default=3, ge=1, description="refinements per row, the first one included")
    compose_refused: bool = Field(
        default=False,
        exclude_if=lambda compose: not compose,  # fingerprints of before it existed stay
        description="where a model's draft or description is refused to the last, compose the text by rules instead,"
        " with the flag 'composed'; for weak models",
    )
    max_rejected_share: float = Field(
        default=0.5, ge=0, le=1, description="a shard with a larger share of rejected rows fails as a whole"
    )

    @model_validator(mode="after")
    def _some_length_fits(self) -> VerificationConfig:
        if self.min_words > self.max_words:
            raise ValueError(f"no text has {self.min_words} words or more and at most {self.max_words}")
        return self


class NearDuplicatesConfig(Section):
    """Descriptions that say almost the same. They are counted in the manifest, and left out where that is set."""

    threshold: float = Field(
        default=0.85, gt=0, le=1, description="Jaccard similarity of the word triples from which texts are alike"
    )
    remove: bool = Field(default=False, description="keep the first of a group alone, and reject the others")


class PublishConfig(Section):
    """Where the finished dataset goes; nothing is uploaded without a repo."""

    repo: str | None = Field(default=None, description="org/name on the Hugging Face Hub")
    private: bool = True
    tag: str | None = None
    images: Literal["embed", "reference", "thumbnail"] | None = Field(
        default=None, description="what goes up of the pixels; default: what each source's terms allow"
    )
    token_block: str | None = Field(default=None, description="name of a Prefect Secret block that holds the token")


class Price(Section):
    """What a model's provider charges, in the currency of the build's budget (USD without one)."""

    tokens_in: float = Field(ge=0, description="for a million tokens of prompts")
    tokens_out: float = Field(ge=0, description="for a million tokens of answers")
    images: float = Field(default=0.0, ge=0, description="for a million images, where they are no tokens of the prompt")


class BuildConfig(Section):
    """Everything that ``build-llamapointinpart`` needs."""

    output: str = Field(description="folder or fsspec URL that the dataset is written to")
    seed: int = 0
    limit: int | None = Field(default=None, ge=1, description="at most so many points in all: a preview")
    shard_size: int = Field(default=200, ge=1, description="images or rows per task")
    workers: int = Field(default=2, ge=1, le=10_000, description="tasks that run at the same time")
    runner: RunnerConfig = Field(default=RunnerConfig(), description="where tasks run; 'threads' is {kind: threads}")
    request_cache: str | None = Field(
        default=None, description="PostgreSQL URL of finished answers, for workers on several machines; default: a file"
    )
    resume: Literal["always", "if_possible", "never"] = Field(
        default="always",
        description="always: go on, refuse a folder with another configuration; if_possible: accept a changed one"
        " and reuse what it leaves valid; never: refuse a folder that holds anything",
    )
    images: Literal["embed", "reference", "thumbnail"] | None = Field(
        default=None, description="pixels in the dataset: the file's own bytes (default), none, or small images"
    )
    rows_per_file: int = Field(
        default=250,
        ge=1,
        description="rows per Parquet file, one row group each: a stream reads no more for its first row",
    )
    sources: dict[str, SourceConfig] = Field(default_factory=dict)
    keypoints: KeypointConfig = KeypointConfig()
    sampling: SamplingConfig = SamplingConfig()
    crop: CropConfig = CropConfig()
    object_caption: StepConfig = StepConfig()
    local_caption: StepConfig = StepConfig()
    merged_captions: Literal["both", "object_caption", "local_caption"] = Field(
        default="both", description="what generate and refine are shown beside the annotations; one alone: an ablation"
    )
    generate: StepConfig = StepConfig()
    refine: StepConfig = StepConfig()
    verification: VerificationConfig = VerificationConfig()
    judge: JudgeConfig | None = Field(
        default=None,
        exclude_if=lambda judge: judge is None,  # fingerprints of before it existed stay
        description="a score of every finished description, in the column judge_score; default: none is judged",
    )
    near_duplicates: NearDuplicatesConfig | None = Field(
        default=None,
        exclude_if=lambda found: found is None,  # fingerprints of before it existed stay
        description="look for texts that say almost the same, which the report does in any case; true: count them",
    )
    prices: dict[str, Price] = Field(default_factory=dict, description="what answers cost, by .model of a step")
    budget: str | None = Field(
        default=None, description="amount and currency, e.g. 50 USD: the build stops when its answers have cost it"
    )
    publish: PublishConfig = PublishConfig()

    _runner_is_a_section = model_validator(mode="before")(runner_as_section)
    _database = field_validator("request_cache")(database_url)

    @field_validator("near_duplicates", mode="before")
    @classmethod
    def _looked_for(cls, value: object) -> object:
        return {True: NearDuplicatesConfig(), False: None}[value] if isinstance(value, bool) else value

    @field_validator("budget", mode="before")
    @classmethod
    def _amount_and_currency(cls, value: object) -> object:
        if value is None or value == "":
            return None
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]{3})?\s*", str(value))
        if not found:
            raise ValueError("expected an amount and a currency, e.g. 50 USD")
        return f"{found[1]} {(found[2] or 'USD').upper()}"

    @property
    def currency(self) -> str:
        """Of the budget and the prices."""
        return self.budget.partition(" ")[2] if self.budget else "USD"

    @model_validator(mode="after")
    def _budget_has_prices(self) -> BuildConfig:
        served = {step.model for step in self.asking.values() if step.backend == "openai"}
        missing = sorted(str(model) for model in served if model not in self.prices)
        if self.budget and missing:
            raise ValueError(
                "a budget needs the price of every model that a server answers with: add prices.<model> with "
                f"tokens_in and tokens_out for {', '.join(missing)} (0 for a server of your own)"
            )
        return self

    @field_validator("sources")
    @classmethod
    def _check_sources(cls, value: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name in value:
            if name not in (known := buildable_sources()):
                raise ValueError(
                    f"no part-annotated source '{name}': expected one of {', '.join(known)}{suggest(name, known)}"
                )
        return value

    @model_validator(mode="after")
    def _one_process_per_server(self) -> BuildConfig:
        served = [step for step in STEP_NAMES if self.step(step).backend in MANAGED]
        if served and self.runner.kind != "threads":
            raise ValueError(
                f"{served[0]}.backend: a build starts one server for all of its workers: set runner=threads, or serve "
                "the model yourself and name it as backend 'openai'"
            )
        return self

    @model_validator(mode="after")
    def _look_is_known(self) -> BuildConfig:
        if self.verification.require_look and self.merged_captions == "object_caption":
            raise ValueError(
                "without the local caption nothing says what a point looks like, and the verifier would reject every "
                "row: set verification.require_look=false"
            )
        return self

    @field_validator("output")
    @classmethod
    def _readable(cls, output: str) -> str:
        """The output as a path or an URL. Names that the datasets library cannot read are refused."""
        if "://" in output and not output.startswith("file://"):
            return output
        return readable_output(output.removeprefix("file://"))

    @property
    def open_sources(self) -> dict[str, SourceConfig]:
        """The sources that have a root, in the published order."""
        return {
            name: self.sources[name] for name in buildable_sources() if name in self.sources and self.sources[name].root
        }

    def dataset_settings(self) -> dict[str, Any]:
        """See the function of this name."""
        return dataset_settings(self)

    @property
    def asking(self) -> dict[str, StepConfig]:
        """The steps that ask a backend: those that write text, and the judge where it is a model."""
        judge = {"judge": self.judge} if self.judge is not None and self.judge.by == "model" else {}
        return {name: self.step(name) for name in STEP_NAMES} | judge

    def step(self, name: str) -> StepConfig:
        """The configuration of one text step, or of the judge."""
        section = getattr(self, name)
        if not isinstance(section, StepConfig):
            raise KeyError(name)
        return section


NOT_IN_FINGERPRINT: dict[str, tuple[str, ...]] = {
    "build": ("output", "workers", "runner", "request_cache", "shard_size", "resume", "publish", "prices", "budget"),
    "source": ("root",),
    "verification": ("max_rejected_share",),
    "step": ("batch_size", "concurrency", "timeout", "endpoint", "api_key_env", "device", "server", "batch"),
}
"""Fields that cannot change a row of the dataset. A moved root is recognised by its content."""


def dataset_settings(config: BuildConfig) -> dict[str, Any]:
    """The configuration without the fields of ``NOT_IN_FINGERPRINT`` and without secrets, as plain JSON values."""
    settings = config.model_dump(mode="json", exclude=set(NOT_IN_FINGERPRINT["build"]))
    for step in (*STEP_NAMES, "judge"):
        for name in NOT_IN_FINGERPRINT["step"]:
            settings.get(step, {}).pop(name, None)
    for name in NOT_IN_FINGERPRINT["verification"]:
        settings["verification"].pop(name)
    settings["sources"] = {
        name: {
            key: value for key, value in settings["sources"][name].items() if key not in NOT_IN_FINGERPRINT["source"]
        }
        for name in config.open_sources
    }
    clean: dict[str, Any] = hide_secrets(settings)
    return clean
