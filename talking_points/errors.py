"""The two kinds of errors whose message is all that a person needs. Every other exception is a fault of ours."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot be used: says what was expected, what was found, what to do. Exit code 2."""


class RunError(RuntimeError):
    """The work cannot be finished: says what is kept and how to go on. Exit code 1."""


class TrainingStoppedError(RunError):
    """Training cannot go on: says why, at which step, and which checkpoint is good."""


class AnswersPending(RunError):
    """What was asked for cannot be finished before a batch is answered."""
