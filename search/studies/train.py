"""`augsearch train`: one model trained under a policy, epoch by epoch, and its weights.

The checkpoint is the one truth about a training: it holds the network, what was best, and a row
for every epoch. epochs.jsonl is a view of these rows, best.pt and last.pt are made from it at the
end. An epoch counts once its checkpoint is on the disk; a kill at any moment costs at most the
epoch under way, and what it drew is drawn again (see `proxy_tasks.trainer`).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policies.errors import InputError
from policies.files import digest, read_json, write_atomically, write_json
from proxy_tasks import Evaluation, ProxyTask, get_preset
from proxy_tasks.batches import channel_statistics
from proxy_tasks.events import EventFile, writing
from proxy_tasks.processes import Processes, processes
from proxy_tasks.run_format import EPOCH_NUMBERS, EPOCHS_NAME, EVENTS, RESULT_NAME
from proxy_tasks.samplers import batches_of
from proxy_tasks.trainer import Trainer
from search.engine.progress import Progress
from search.engine.signals import Signals
from search.errors import JournalError, SearchInterrupted, resume_command
from search.runs.blobs import DamagedBlob, read_blob, write_blob
from search.runs.folder import check_manifest

from .arms import Arm, check_pipelines, parse_arm, warn_of_images_seen
from .config import Config, read_config
from .seeds import training_seed
from .study import OpenRun, open_run, task_of

CHECKPOINT_NAME, BOARD_NAME = "checkpoint.pt", "tensorboard"
# What process 0 tells the others about the folder that it opened.
DONE, BEGUN, RESUMED = 0, 1, 2
WEIGHTS_FORMAT, WEIGHTS_VERSION = "augsearch weights", 1
# Of an average of weights: from what share of the first ones on a training says so.
MOST_OF_THE_FIRST = 0.05


def run_train(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    progress: bool = True,
) -> Evaluation | None:
    """Train in the run folder `out`; started by torchrun, together with the other processes.

    Args:
        config: `Config.of("train", policy="imagenet")`; see `arms.FORMS` for the policy.

    Returns:
        The evaluation of the best weights on the test part; None in processes other than 0.

    Raises:
        InputError: a user's mistake; nothing is left behind if no epoch was finished.
        SearchInterrupted: SIGINT or SIGTERM, after the epoch's checkpoint.
        JournalError: the disk takes no more.
    """
    config = _with_arm(config)
    with processes() as mine, contextlib.ExitStack() as stack:
        if mine.rank > 0:
            _follow(Path(out), mine)
            return None
        run = stack.enter_context(open_run(config, out, resume))
        arms = [Arm.from_json(run.config.settings.arm)]
        check_pipelines(arms, run.task.train.images)
        warn_of_images_seen(run, arms)
        found = _found(run.path)
        if found is not None:
            mine.total(DONE)
            return found
        for left in run.path.glob(".*.tmp"):
            left.unlink()  # of a process that was killed while it wrote
        mine.total(RESUMED if run.resumed else BEGUN)
        trainer = _trainer(run.config, run.task, mine)
        _warn_of_average(run)
        if run.resumed:
            _restore(trainer, run.path)
        _train(trainer, run.path, mine, run.config.settings.tensorboard, progress)
        return _finish(trainer, run)


def _warn_of_average(run: OpenRun) -> None:
    """Say that an average of the weights will still be mostly where the training began."""
    evaluator = run.config.evaluator
    recipe = run.config.settings.applied(get_preset(evaluator.preset, run.task.name))
    batches = batches_of(len(run.task.train), recipe.batch_size)
    left = recipe.ema ** (batches * (evaluator.epochs or recipe.epochs))
    if recipe.ema and left > MOST_OF_THE_FIRST:
        run.log.warning(
            f"ema {recipe.ema:g}: {100 * left:.0f} % of the weights that are judged will be those "
            "after the first step; lower it, or train longer"
        )


def _with_arm(config: Config) -> Config:
    """With the policy read in, so that the run folder holds it."""
    settings = config.settings
    arm = parse_arm(settings.policy) if settings.arm is None else Arm.from_json(settings.arm)
    if len(arm.members) > 1:
        raise InputError(
            "policy", "must be one to train under", f"{settings.policy}, {len(arm.members)} files",
            "name one of them",
        )  # fmt: skip
    settings = replace(settings.joined(arm.recipe), arm=arm.to_json())
    return replace(config, settings=settings)


def _follow(out: Path, mine: Processes) -> None:
    """Train beside process 0, which has opened the folder and does all the writing."""
    state = mine.total(0)  # what process 0 says
    if state == DONE:
        return
    config = read_config(out)
    task = task_of(config)
    check_manifest(out, task)
    trainer = _trainer(config, task, mine)
    if state == RESUMED:
        _restore(trainer, out)
    _train(trainer, out, mine, board=False, progress=False)


def _trainer(config: Config, task: ProxyTask, mine: Processes) -> Trainer:
    settings = config.settings
    evaluator = config.evaluator
    if mine.count > 1 and evaluator.device.startswith("cuda"):
        evaluator = replace(evaluator, device=f"cuda:{torch.cuda.current_device()}")
    return Trainer(
        evaluator,
        task,
        settings.applied(get_preset(evaluator.preset, task.name)),
        Arm.from_json(settings.arm).augmentation(settings.seed, 0),
        training_seed("train", settings.seed),
        mine,
    )


# Epochs ----------------------------------------------------------------------------------------


def _train(trainer: Trainer, path: Path, mine: Processes, board: bool, progress: bool) -> None:
    """Train what is left. Process 0 writes checkpoint, log and events after every epoch."""
    done = len(trainer.rows)
    first = True
    with (
        Signals() as signals,
        _events(path, board, trainer.rows) as tell,
        Progress(trainer.epochs, done, progress, "epoch", "epochs", "accuracy") as shown,
    ):
        if mine.rank == 0 and done:
            _write_log(trainer, path)
        while not trainer.finished:
            row = trainer.train_epoch()
            if mine.rank == 0:
                _keep(trainer, path, check=first)
                _write_log(trainer, path)
                tell(row)
                best = trainer.best_row
                shown.update(len(trainer.rows), 1, best["accuracy"] if best else None)
            first = False
            number = int(mine.largest(signals.number or 0))
            if number:
                raise SearchInterrupted(number, path, len(trainer.rows), "epochs")


def _keep(trainer: Trainer, path: Path, check: bool) -> None:
    """Write the checkpoint. check: make sure that it can be read again without running code."""
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    if check:
        try:
            _load(buffer.getvalue())
        except pickle.UnpicklingError as error:
            raise InputError(
                "optimizer", "must keep tensors, numbers and text as its state",
                str(error).splitlines()[0], "use another optimiser",
            ) from error  # fmt: skip
    with _writing(path):
        write_blob(path / CHECKPOINT_NAME, buffer.getvalue())


def _load(content: bytes) -> Any:
    """Tensors, numbers and text; nothing in the file is executed."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _restore(trainer: Trainer, path: Path) -> None:
    """Go on from the checkpoint. Raises InputError when it is damaged or gone."""
    file = path / CHECKPOINT_NAME
    try:
        state = _load(read_blob(file))
    except (DamagedBlob, pickle.UnpicklingError) as error:
        raise InputError(
            str(file), "must be as it was written", str(error),
            "restore it from a copy, or start a new run",
        ) from error  # fmt: skip
    trainer.load_state_dict(state)


def _write_log(trainer: Trainer, path: Path) -> None:
    """epochs.jsonl: a line for every epoch, replaced as a whole so that none is ever cut."""
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in trainer.rows]
    with _writing(path):
        write_atomically(path / EPOCHS_NAME, "".join(lines))


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"cannot write in {path}: {error.strerror}; the epochs up to the last checkpoint are "
            f"safe. Make room, then go on with: {resume_command(path)}"
        ) from error


# TensorBoard -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _events(
    path: Path, wanted: bool, rows: list[dict[str, Any]]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that tells TensorBoard a row. The files are a view: `rows`, those of the
    checkpoint, are told anew in place of whatever is there, and where they cannot be written the
    training goes on without."""
    if not wanted:
        yield lambda row: None
        return
    folder = path / BOARD_NAME
    writer: EventFile | None = None
    broken = False

    def give_up(error: InputError) -> None:
        nonlocal broken
        broken = True
        logging.getLogger("search").warning(f"{error}; the training goes on without events")

    try:
        with writing(folder):
            for old in folder.glob(EVENTS):
                old.unlink()
    except InputError as error:
        give_up(error)

    def tell(row: dict[str, Any]) -> None:
        nonlocal writer
        if broken:
            return
        try:
            # Only now: a folder in which nothing is finished stays as it began.
            writer = writer or EventFile(folder)
            for name in EPOCH_NUMBERS:
                if row[name] is not None:
                    writer.add(name, row[name], row["epoch"])
            writer.flush()
        except InputError as error:
            give_up(error)

    for row in rows:
        tell(row)
    yield tell
    if writer is not None and not broken:
        writer.close()


# The end ---------------------------------------------------------------------------------------


def _found(path: Path) -> Evaluation | None:
    """The evaluation of a finished run; None where a result is missing or not as it was written.

    All results follow from the checkpoint, and are made of it anew then.
    """
    try:
        result = read_json(path / RESULT_NAME)
        for name, checksum in result["files"].items():
            if digest((path / name).read_bytes()) != checksum:
                return None
        return Evaluation.from_json(result["evaluation"])
    except (ValueError, OSError, KeyError, TypeError, AttributeError):
        return None


def _finish(trainer: Trainer, run: OpenRun) -> Evaluation:
    """Write the weights and what they reached; result.json, which ends the run, comes last."""
    best, last = trainer.best_row, trainer.rows[-1]
    evaluation = trainer.judge()
    files = [EPOCHS_NAME]
    with _writing(run.path):
        if best is not None:
            files += _write_weights(run, trainer, "best", trainer.best, best)
        files += _write_weights(run, trainer, "last", trainer.weights(), last)
        write_json(
            run.path / RESULT_NAME,
            {
                "arm": run.config.settings.arm,
                "seed": trainer.seed,
                "manifest_hash": run.task.manifest_hash,
                "evaluation": evaluation.to_json(),
                "files": {name: digest((run.path / name).read_bytes()) for name in files},
            },
        )
    return evaluation


def _write_weights(
    run: OpenRun, trainer: Trainer, name: str, weights: dict[str, Tensor], row: dict[str, Any]
) -> list[str]:
    """NAME.pt, a state_dict, and NAME.json: what a user of the weights must know. Returns both."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    write_atomically(run.path / f"{name}.pt", buffer.getvalue())
    means, deviations = channel_statistics(run.task.train.images)
    channels, *side = run.task.train.images.shape[1:]
    about = {
        "format": WEIGHTS_FORMAT,
        "version": WEIGHTS_VERSION,
        "sha256": digest(buffer.getvalue()),
        "model": trainer.preset.model,
        "channels": channels,
        "resolution": side,
        "class_names": list(run.task.class_names),
        # Of values between 0 and 1, as torchvision's Normalize takes them.
        "mean": [value / 255 for value in means],
        "std": [value / 255 for value in deviations],
        "policy": run.config.settings.arm,
        "epoch": row["epoch"],
        "validation": {key: row[key] for key in ("accuracy", "log_likelihood", "divergence")},
        "manifest_hash": run.task.manifest_hash,
    }
    write_json(run.path / f"{name}.json", about)
    return [f"{name}.pt", f"{name}.json"]
