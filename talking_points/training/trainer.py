"""What training the descriptor, the localizer and the adaptation share, on transformers' ``Trainer``.

The Trainer gives gradient accumulation, mixed precision, several GPUs, logging, checkpoints and resuming. Added here
are batches from cached features, a stop at the first loss or gradient that is no number, checkpoints that count only
when they are complete, an early stop that an interruption does not change, and curves.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from talking_points.errors import TrainingStoppedError
from talking_points.examples.features import ImageFeatures, PointFeatures
from talking_points.examples.points import LengthBuckets, PointSet
from talking_points.models.omg_llava.chat import Turn
from talking_points.processes import process_state
from talking_points.step_progress import StepProgress, follow
from talking_points.tensor_files import share_weights
from talking_points.training.checkpoints import (
    COMPLETE,
    check_checkpoint,
    complete_checkpoints,
    last_checkpoint,
    own_checkpoint,
)
from talking_points.training.config import StageConfig
from talking_points.training.curves import CurveCallback
from talking_points.training.optimizers import MuonAdamW
from talking_points.training.precision import autocast, is_mixed
from talking_points.whole_files import advising, going_on, write_json

METRIC = "metric"


class Example(Protocol):
    """What is trained on: anything with a name that an error can give."""

    @property
    def id(self) -> str:
        """Names the example."""


class StageTrainer(Trainer):
    """A ``Trainer`` of a stage: batches are lists of examples, turned into model inputs by a subclass.

    ``metric`` measures the model on held-out examples, higher is better. With a ``patience`` it decides which weights
    are the best, which are then the ones that are saved, and when to stop.

    The loss of a batch is a mean over it, and with ``accumulation`` the mean of these means: that of one large batch
    where the batches weigh the same. A localizer's do if they have as many points, a descriptor's if they have as
    many tokens.
    """

    optimizer: torch.optim.Optimizer | None
    what = "examples"
    """What examples are called in messages."""

    def __init__(
        self,
        model: PreTrainedModel,
        examples: Sequence[Any],
        config: StageConfig,
        output: Path,
        seed: int,
        metric: Callable[[], float] | None = None,
    ) -> None:
        self.trained: PreTrainedModel = model
        self.metric = metric
        self.batch: list[Any] = []
        self._since_update: list[Any] = []
        super().__init__(
            model=model,
            args=make_arguments(config, output, seed, evaluate=metric is not None),
            train_dataset=list(examples),
            # ``metric`` knows its own points; the Trainer only asks that there are any.
            eval_dataset=[] if metric is not None else None,
            callbacks=[CurveCallback(output)],
        )
        self.remove_callback(PrinterCallback)
        self.shown: dict[str, float] = {}
        self.stage = config

    def batch_inputs(self, examples: Sequence[Any]) -> dict[str, Any]:
        """The model's keyword arguments for a batch."""
        raise TypeError(f"{type(self).__name__} must say how examples become inputs")

    def batches(self) -> LengthBuckets:
        """Which examples are in which batch."""
        raise TypeError(f"{type(self).__name__} must say how examples become batches")

    def get_train_dataloader(self) -> DataLoader:
        return EpochLoader(
            self.train_dataset, batch_sampler=self.batches(), collate_fn=lambda examples: {"points": examples}
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.stage.optimizer == "muon" and self.optimizer is None:
            trained = self.accelerator.unwrap_model(self.model)
            self.optimizer = MuonAdamW(
                trained, trained.output_layers(), self.args.learning_rate, self.args.weight_decay
            )
        return super().create_optimizer(model)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self.batch = inputs["points"]
        output = model(**self.batch_inputs(self.batch))
        return (output.loss, output) if return_outputs else output.loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self._since_update += self.batch
        self._require_number("loss", loss, self.batch)
        # With accumulation the losses of a step's batches are parts of one mean.
        self.shown["loss"] = self.shown.get("loss", 0.0) + float(loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self._require_number("gradient", norm, self._since_update)
        self._since_update = []
        return norm

    def _require_number(self, what: str, value: Tensor | float, batch: Sequence[Example]) -> None:
        if not math.isfinite(float(value)):
            ids = ", ".join(example.id for example in batch)
            raise TrainingStoppedError(
                f"the {what} became {float(value)} in step {self.state.global_step + 1}, in the batch of {self.what} "
                f"{ids}: look at these {self.what} and {self._advise_again()}; a lower learning rate needs another "
                "output"
            )

    def _advise_again(self) -> str:
        checkpoint = last_checkpoint(self.args.output_dir)
        if checkpoint is None:
            return "run again to begin anew, as no checkpoint is complete yet"
        return f"run again to go on from the last good checkpoint, {checkpoint}"

    def _writing(self, what: str) -> AbstractContextManager[None]:
        return advising(what, f"make room and {self._advise_again()}")

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        with self._writing(f"the log in {self.args.output_dir}"):
            super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        assert self.metric is not None
        was_training = self.model.training
        self.model.eval()
        # A model of one precision is measured in it.
        mixed = autocast(self.model, self.stage) if is_mixed(self.model) else nullcontext()
        with torch.no_grad(), mixed:
            value = float(self.metric())
        self.model.train(was_training)
        # Processes that compute it themselves might disagree on when to stop.
        metrics = {f"eval_{METRIC}": broadcast_object_list([value])[0]}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.stage.patience is not None:
            self.control.should_save |= evaluations_since_best(self.state.log_history) == 0
            self.control.should_training_stop |= self._is_stalled()
        return metrics

    def _is_stalled(self) -> bool:
        """Whether patience has come to its end: told from the logged values, which a checkpoint brings back."""
        patience = self.stage.patience
        return patience is not None and evaluations_since_best(self.state.log_history) >= patience

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Of a run that was interrupted after its last step, nothing is left to train: the Trainer would take one more.
        if self.state.global_step >= self.state.max_steps or self._is_stalled():
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save, mark the checkpoint when everything in it is on the disk, and only then remove older ones."""
        step = self.state.global_step
        broken = [name for name, value in self.model.named_parameters() if value.requires_grad and not _finite(value)]
        if broken:
            raise TrainingStoppedError(
                f"{len(broken)} weights are no numbers after step {step}, {broken[0]} among them: lower the learning "
                f"rate with another output, or {self._advise_again()}"
            )
        with self._writing(f"the checkpoint of step {step} to {self.args.output_dir}"):
            super()._save_checkpoint(*args, **kwargs)
            process_state().wait_for_everyone()  # each process writes the state of its own random numbers
            if self.is_world_process_zero():
                marker = Path(self.args.output_dir) / f"checkpoint-{step}" / COMPLETE
                share_weights(marker.parent)
                write_json(marker, {"step": step})
                self._rotate()

    def _reading(self, checkpoint: str | None) -> AbstractContextManager[None]:
        """Around what a library reads of a checkpoint, which takes its form for granted."""
        return going_on(checkpoint, "remove it and run again to go on from the checkpoint before it")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with self._reading(resume_from_checkpoint):
            self.read_weights(resume_from_checkpoint, model)

    def read_weights(self, checkpoint: str, model: Any = None) -> None:
        """Take up the weights of a checkpoint."""
        super()._load_from_checkpoint(checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with self._reading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with self._reading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            best = str(own_checkpoint(self.args.output_dir, self.state.best_model_checkpoint))
            self.state.best_model_checkpoint = best
            with self._reading(best):
                self.read_best(best)

    def read_best(self, checkpoint: str) -> None:
        """Take up the weights of the best checkpoint."""
        super()._load_best_model()

    def _rotate(self) -> None:
        """Remove all complete checkpoints but the newest and the best."""
        best = self.state.best_model_checkpoint
        for checkpoint in complete_checkpoints(self.args.output_dir)[: -self.stage.keep]:
            if best is None or checkpoint.name != Path(best).name:
                (checkpoint / COMPLETE).unlink()  # before it is half a checkpoint
                shutil.rmtree(checkpoint)

    def run(self) -> dict[str, float]:
        """Train, going on from the last complete checkpoint; save the model; return the last logged values."""
        checkpoint = last_checkpoint(self.args.output_dir)
        if checkpoint is not None:
            check_checkpoint(checkpoint)
        with follow(Path(self.args.output_dir).name, None) as progress:
            if checkpoint is not None:
                progress.remark(f"goes on from {checkpoint}")
            self.add_callback(_Steps(progress, self.shown))
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if self.args.process_index == 0:
            with self._writing(f"the trained model to {self.args.output_dir}"):
                self.trained.save_pretrained(self.args.output_dir)
        values: dict[str, float] = {}
        for entry in self.state.log_history:
            values.update({name: value for name, value in entry.items() if isinstance(value, int | float)})
        return values


class ImageTrainer(StageTrainer):
    """Trains on examples about images whose features are kept: batches are lists of examples."""

    def __init__(
        self,
        model: PreTrainedModel,
        features: ImageFeatures[Any],
        config: StageConfig,
        output: Path,
        seed: int,
        metric: Callable[[], float] | None = None,
    ) -> None:
        self.features: Any = features
        self.points: Any = features.points
        self._turns: dict[str, Turn] = {}
        super().__init__(model, self.points.examples, config, output, seed, metric)
        self.trained = features.model
        # Whoever judges the model later gives it features of the same kind, and leaves the training's where they are.
        features.model.config.feature_dtype = features.dtype
        features.store.remember_bound()

    def batch_inputs(self, examples: Sequence[Any]) -> dict[str, Any]:
        return self.inputs(examples, self.features)

    def inputs(self, examples: Sequence[Any], features: Any) -> dict[str, Any]:
        """The model's keyword arguments for examples and the features of their images."""
        raise TypeError(f"{type(self).__name__} must say how {self.what} become inputs")

    def turns(self, examples: Sequence[Any]) -> list[Turn]:
        """The turns of examples with their texts, each tokenised once."""
        for example in examples:
            if example.id not in self._turns:
                self._turns[example.id] = self.turn(example)
        return [self._turns[example.id] for example in examples]

    def turn(self, example: Any) -> Turn:
        """One turn, question and answer."""
        raise TypeError(f"{type(self).__name__} must say how one of the {self.what} becomes a turn")

    def batches(self) -> LengthBuckets:
        lengths = [len(example.text) for example in self.points.examples]
        images = [example.image for example in self.points.examples]
        return LengthBuckets(
            lengths,
            self.stage.batch_size,
            self.args.seed,
            images=images,
            per_image=self.stage.points_per_image,
            process=self.args.process_index,
            processes=self.args.world_size,
        )


class PointTrainer(ImageTrainer):
    """Trains on points: batches are lists of ``PointExample`` with the features of their images."""

    what = "points"
    features: PointFeatures
    points: PointSet


def make_arguments(config: StageConfig, output: Path, seed: int, evaluate: bool) -> TrainingArguments:
    """The Trainer's arguments for a stage."""
    choose = evaluate and config.patience is not None
    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.scheduler,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        adam_beta2=0.999,
        bf16=config.bf16,
        activation_checkpointing=config.gradient_checkpointing,
        seed=seed,
        save_strategy="steps",
        save_steps=config.save_steps,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=config.eval_steps,
        load_best_model_at_end=choose,
        metric_for_best_model=f"eval_{METRIC}" if choose else None,
        greater_is_better=True,
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        report_to=["tensorboard"],
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    # Of several GPUs one process takes one: the Trainer would split batches, which are no tensors, among all.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def evaluations_since_best(history: Sequence[dict[str, Any]]) -> int:
    """How many evaluations there were after the first with the highest metric; 0 without any."""
    values = [entry[f"eval_{METRIC}"] for entry in history if f"eval_{METRIC}" in entry]
    ranked = [-math.inf if math.isnan(value) else value for value in values]
    return len(ranked) - 1 - ranked.index(max(ranked)) if ranked else 0


def _finite(value: Tensor) -> bool:
    return bool(value.detach().isfinite().all())


class _Steps(TrainerCallback):
    """Tells of every step, with the values that the trainer has put down for it."""

    def __init__(self, progress: StepProgress, shown: dict[str, float]) -> None:
        self.progress = progress
        self.shown = shown

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress.begin(state.max_steps, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress.advance(**self.shown)
        self.shown.clear()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        value = metrics[f"eval_{METRIC}"]
        self.progress.remark(f"the metric on held-out points is {value:.2f} after step {state.global_step:,}")


class EpochLoader(DataLoader):
    """Tells its batches the epoch, as the Trainer expects of a loader; accelerate's own would tell one process only."""

    def set_epoch(self, epoch: int) -> None:
        assert isinstance(self.batch_sampler, LengthBuckets)
        self.batch_sampler.set_epoch(epoch)
