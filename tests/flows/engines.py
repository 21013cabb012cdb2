"""Executes runs of deployments as a worker does, one after the other, without a start of Python for each.

``python -P -m tests.flows.engines`` reads the id of a run from each line of its input, and answers with a line once
the run is over. Each has a process of its own, in which ``python -m prefect.engine`` is what it is for a worker: it
takes the steps of the deployment, loads its entrypoint and runs the flow. Nothing of this project is imported before.
"""

from __future__ import annotations

import os
import runpy
import sys

import prefect.deployments.steps.core
import prefect.engine
import prefect.flow_engine  # noqa: F401  (what the engine imports)

if __name__ == "__main__":
    for line in sys.stdin:
        if os.fork() == 0:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            sys.argv[1:] = [line.strip()]
            del sys.modules["prefect.engine"]  # it is the program
            runpy.run_module("prefect.engine", run_name="__main__")
            sys.exit()
        os.wait()
        print(flush=True)
