"""Train SetFit as its own documentation does, count and time its steps. A program of its own: it needs setfit alone.

    python setfit_run.py job.json result.json

job: {"folder": encoder, "texts", "labels", "test", "max_steps": number or null for the whole default training,
"warm_up": steps that are not timed, "threads", "seed", "scratch": folder for the trainer's files}
result: {"default_pairs", "default_steps", "batch", "seconds": of training, "cpu_seconds", "step_cpu_seconds":
[one a step], "step_seconds", "steps", "predictions", "peak_mb", "versions"}

setfit and quickstudy may live in different environments (setfit brings transformers), hence the process of its own.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def peak_megabytes() -> float:
    """The most memory that this process has held."""
    try:
        # Not getrusage: on Linux its figure survives exec, and would be that of a large parent.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / 2**20 if sys.platform == "darwin" else used / 1024


def clocks() -> tuple[float, float]:
    """(seconds on the wall, seconds of computing by all threads of this process)."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """The same, since `start`."""
    now = clocks()
    return now[0] - start[0], now[1] - start[1]


def default_pairs(labels: list[str]) -> int:
    """How many pairs SetFit's default ("oversampling") trains on.

    All pairs of different texts are drawn, and each text with itself; the rarer kind, of one class or of two, is
    repeated until there are as many of both.
    """
    total = len(labels) * (len(labels) + 1) // 2
    counts = [labels.count(label) for label in set(labels)]
    positive = sum(n * (n + 1) // 2 for n in counts)
    return 2 * max(positive, total - positive)


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train and predict as the job says."""
    import datasets
    import sentence_transformers
    import setfit
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    datasets.disable_progress_bars()
    labels = sorted(set(job["labels"]))
    model = setfit.SetFitModel.from_pretrained(job["folder"], labels=labels)
    arguments = setfit.TrainingArguments(
        output_dir=job["scratch"],
        max_steps=job["max_steps"] or -1,
        seed=job["seed"],
        save_strategy="no",  # writing checkpoints would count against it
        report_to="none",
        show_progress_bar=False,
    )
    table = datasets.Dataset.from_dict(
        {"text": job["texts"], "label": [labels.index(label) for label in job["labels"]]}
    )
    taken: list[tuple[float, float]] = []

    class Timer(transformers.TrainerCallback):
        def on_step_begin(self, *given: Any, **more: Any) -> None:
            self.start = clocks()

        def on_step_end(self, *given: Any, **more: Any) -> None:
            taken.append(since(self.start))

    trainer = setfit.Trainer(model=model, args=arguments, train_dataset=table)
    trainer.st_trainer.add_callback(Timer())
    start = clocks()
    trainer.train()
    seconds, cpu_seconds = since(start)
    found = [str(answer) for answer in model.predict(job["test"], batch_size=32)]
    batch = arguments.embedding_batch_size
    pairs = default_pairs(job["labels"])
    return {
        "default_pairs": pairs,
        "default_steps": -(-pairs // batch) * arguments.embedding_num_epochs,
        "batch": batch,
        "seconds": seconds,
        "steps": len(taken),
        "cpu_seconds": cpu_seconds,
        "step_seconds": [wall for wall, _ in taken[job["warm_up"] :]],
        "step_cpu_seconds": [cpu for _, cpu in taken[job["warm_up"] :]],
        "predictions": found,
        "peak_mb": peak_megabytes(),
        "versions": {p.__name__: p.__version__ for p in (setfit, sentence_transformers, transformers, torch)},
    }


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    given, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(train(json.loads(given.read_text()))))
