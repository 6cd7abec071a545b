"""The batches of an epoch: the same ones ahead of time as when they are needed, and never read twice at once."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.tasks.task import Task
from autoprune.training import loop, prefetch
from autoprune.training.loop import Trainer
from autoprune.training.prefetch import Prefetcher

MakeTask = Callable[..., Task]
BATCHES = torch.arange(70).split(16)


def prefetcher_of(task: Task, n_at_once: int | None, ahead: bool) -> Prefetcher:
    return Prefetcher(task, BATCHES, n_at_once, torch.Generator().manual_seed(5), ahead=ahead)


def all_inputs(task: Task, n_at_once: int | None, ahead: bool, again_at: int = -1) -> list[list[torch.Tensor]]:
    """Inputs of all parts; one batch is asked for again, in parts of 8 and of 4."""
    found = []
    with prefetcher_of(task, n_at_once, ahead) as prefetcher:
        for number, indices in enumerate(BATCHES):
            largest = prefetcher.largest_micro_batch
            parts = list(prefetcher.next_batch())
            assert len(parts[0].targets) == largest
            prefetcher.prefetch_next()
            if number == again_at:
                list(prefetcher.redivide_batch(8))
                prefetcher.prefetch_next()
                parts = list(prefetcher.redivide_batch(4))
                prefetcher.prefetch_next()
            assert sum(part.share for part in parts) == pytest.approx(1)
            assert torch.equal(torch.cat([part.targets for part in parts]), task.data.train.batch(indices)[1])
            found.append([part.inputs for part in parts])
    return found


@pytest.mark.parametrize("n_at_once", [None, 5, 8, 16])
def test_the_same_batches_ahead_as_when_needed(make_task: MakeTask, noise: Any, n_at_once: int | None) -> None:
    task = make_task(augment=noise)
    needed = all_inputs(task, n_at_once, ahead=False)
    assert [sum(map(len, parts)) for parts in needed] == [16, 16, 16, 16, 6]
    n_parts = {None: [1] * 5, 5: [4, 4, 4, 4, 2], 8: [2, 2, 2, 2, 1], 16: [1] * 5}
    assert [len(parts) for parts in needed] == n_parts[n_at_once]
    torch.testing.assert_close(all_inputs(task, n_at_once, ahead=True), needed, rtol=0, atol=0)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_batch_again_in_smaller_parts_is_what_it_would_have_been(
    make_task: MakeTask, noise: Any, at: int, ahead: bool
) -> None:
    task = make_task(augment=noise)
    found, small = all_inputs(task, None, ahead, again_at=at), all_inputs(task, 4, ahead=False)
    assert [len(parts) for parts in found] == [1] * at + [len(parts) for parts in small[at:]]
    whole = all_inputs(task, None, ahead=False)
    torch.testing.assert_close(found[:at], whole[:at], rtol=0, atol=0)
    if at == 0:
        torch.testing.assert_close(found, small, rtol=0, atol=0)
    torch.testing.assert_close(found, all_inputs(task, None, not ahead, again_at=at), rtol=0, atol=0)


class Watched:
    """A split that says in which thread it was read, and whether it is being read; it can be held up."""

    def __init__(self, split: Any) -> None:
        self.split, self.threads, self.n_reading, self.most_reading = split, [], 0, 0
        self.go_on, self.delay = threading.Event(), 0.0
        self.go_on.set()

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: torch.Tensor) -> tuple[Any, torch.Tensor]:
        self.threads.append(threading.current_thread())
        self.n_reading += 1
        self.most_reading = max(self.most_reading, self.n_reading)
        assert self.go_on.wait(30)
        time.sleep(self.delay)
        self.n_reading -= 1
        return self.split.batch(indices)


def watched(task: Task) -> tuple[Task, Watched]:
    split = Watched(task.data.train)
    return replace(task, data=replace(task.data, train=split)), split


def test_a_batch_is_read_while_the_one_before_is_used_and_waited_for(make_task: MakeTask) -> None:
    task, split = watched(make_task())
    with prefetcher_of(task, None, ahead=True) as prefetcher:
        prefetcher.next_batch()
        split.go_on.clear()
        prefetcher.prefetch_next()
        prefetcher.prefetch_next()
        while split.n_reading == 0:
            pass
        threading.Timer(0.2, split.go_on.set).start()
        prefetcher.wait_for_reader()
        assert split.n_reading == 0
        assert len(split.threads) == 2
        thread = split.threads[1]
        assert thread is not threading.main_thread()
        for _ in range(4):
            prefetcher.next_batch()
            prefetcher.prefetch_next()
    assert not thread.is_alive()
    assert len(split.threads) == len(BATCHES)


def test_an_epoch_that_fails_does_not_wait_for_what_never_comes(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "READER_GRACE_S", 0.1)
    task, split = watched(make_task())

    def fail() -> None:
        with prefetcher_of(task, None, ahead=True) as prefetcher:
            prefetcher.next_batch()
            split.go_on.clear()
            prefetcher.prefetch_next()
            while split.n_reading == 0:
                pass
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fail()
    assert split.n_reading == 1
    assert split.threads[-1].daemon
    split.go_on.set()
    split.threads[-1].join(30)
    assert not split.threads[-1].is_alive()


@pytest.mark.parametrize("ahead", [False, True])
def test_what_reading_raises_comes_with_the_batch(make_task: MakeTask, ahead: bool) -> None:
    def failing(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if len(inputs) < 16:
            raise ValueError("this image is broken")
        return inputs

    with prefetcher_of(make_task(augment=failing), None, ahead) as prefetcher:
        for _ in range(4):
            list(prefetcher.next_batch())
            prefetcher.prefetch_next()
        prefetcher.wait_for_reader()
        with pytest.raises(ValueError, match="this image is broken"):
            list(prefetcher.next_batch())


def test_a_training_reads_ahead_but_not_while_its_hook_may_read(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "Prefetcher", lambda *args, **_: Prefetcher(*args, ahead=True))  # ahead is for GPUs
    task, split = watched(make_task(n_train=96))
    split.delay, reading = 0.1, []
    trainer = Trainer(mlp, task, **settings, before_step=lambda progress: reading.append(split.n_reading))
    trainer.run_epoch()
    assert reading == [0, 0, 0]
    assert split.most_reading == 1
    assert [thread is threading.main_thread() for thread in split.threads] == [True, False, False]


def test_memory_that_an_augmentation_lacks_halves_the_batch_too(
    make_task: MakeTask, settings: dict[str, Any], mlp: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if len(inputs) > 8:
            raise torch.OutOfMemoryError("device out of memory")
        return inputs

    monkeypatch.setattr(loop, "Prefetcher", lambda *args, **_: Prefetcher(*args, ahead=True))
    trainer = Trainer(mlp, make_task(n_train=96, augment=hungry), **settings)
    trainer.run_epoch()
    assert trainer.micro_batch_size == 8
