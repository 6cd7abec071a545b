"""The batches of an epoch: the same ones ahead of time as when they are needed, and never read twice at once."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from autoprune.tasks.task import Task
from autoprune.training.feed import Batch, Feed

MakeTask = Callable[..., Task]
BATCHES = torch.arange(70).split(16)


def feed_of(task: Task, n_at_once: int | None, ahead: bool) -> Feed:
    torch.manual_seed(3)
    return Feed(task, BATCHES, n_at_once, torch.Generator().manual_seed(5), ahead=ahead)


def inputs_of(batch: Batch) -> list[torch.Tensor]:
    return [part.inputs for part in batch.parts]


def all_inputs(task: Task, n_at_once: int | None, ahead: bool) -> list[list[torch.Tensor]]:
    found = []
    with feed_of(task, n_at_once, ahead) as feed:
        for _ in BATCHES:
            batch = feed.next()
            feed.look_ahead()
            found.append(inputs_of(batch))
    return found


@pytest.mark.parametrize("n_at_once", [None, 5, 16])
def test_the_same_batches_ahead_as_when_needed(make_task: MakeTask, noise: Any, n_at_once: int | None) -> None:
    task = make_task(augment=noise)
    needed = all_inputs(task, n_at_once, ahead=False)
    assert [sum(map(len, parts)) for parts in needed] == [16, 16, 16, 16, 6]
    assert [len(parts) for parts in needed] == ([1] * 5 if n_at_once in (None, 16) else [4, 4, 4, 4, 2])
    torch.testing.assert_close(all_inputs(task, n_at_once, ahead=True), needed, rtol=0, atol=0)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_batch_again_in_smaller_parts_is_what_it_would_have_been(
    make_task: MakeTask, noise: Any, ahead: bool
) -> None:
    task = make_task(augment=noise)
    found: list[list[torch.Tensor]] = []
    with feed_of(task, None, ahead) as feed:
        for number in range(len(BATCHES)):
            batch = feed.next()
            feed.look_ahead()
            if number == 0:
                inputs_of(batch)
                inputs_of(feed.again(batch, 8))
                batch = feed.again(batch, 4)
                assert batch.largest == 4
            found.append(inputs_of(batch))
    torch.testing.assert_close(found, all_inputs(task, 4, ahead=False), rtol=0, atol=0)


def test_shares_and_targets_are_those_of_the_examples(make_task: MakeTask) -> None:
    task = make_task()
    with feed_of(task, 5, ahead=True) as feed:
        parts = list(feed.next().parts)
    assert [part.share for part in parts] == [0.25] * 4
    assert torch.equal(torch.cat([part.targets for part in parts]), task.data.train.batch(BATCHES[0])[1])


class Watched:
    """A split that says in which thread it was read, and takes its time."""

    def __init__(self, split: Any) -> None:
        self.split, self.threads = split, []
        self.go_on = threading.Event()
        self.reading = 0

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: torch.Tensor) -> tuple[Any, torch.Tensor]:
        self.threads.append(threading.current_thread())
        self.reading += 1
        assert self.go_on.wait(30)
        self.reading -= 1
        return self.split.batch(indices)


def test_a_batch_is_read_while_the_one_before_is_used_and_waited_for(make_task: MakeTask) -> None:
    task = make_task()
    watched = Watched(task.data.train)
    watched.go_on.set()
    with feed_of(replace(task, data=replace(task.data, train=watched)), None, ahead=True) as feed:
        feed.next()
        watched.go_on.clear()
        feed.look_ahead()
        feed.look_ahead()
        while watched.reading == 0:
            pass
        threading.Timer(0.2, watched.go_on.set).start()
        feed.wait()
        assert watched.reading == 0
        assert len(watched.threads) == 2
        thread = watched.threads[1]
        assert thread is not threading.main_thread()
        for _ in range(4):
            feed.next()
            feed.look_ahead()
    assert not thread.is_alive()
    assert len(watched.threads) == len(BATCHES)


@pytest.mark.parametrize("ahead", [False, True])
def test_what_reading_raises_comes_with_the_batch(make_task: MakeTask, ahead: bool) -> None:
    def failing(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if len(inputs) < 16:
            raise ValueError("this image is broken")
        return inputs

    with feed_of(make_task(augment=failing), None, ahead) as feed:
        for _ in range(4):
            inputs_of(feed.next())
            feed.look_ahead()
        feed.wait()
        with pytest.raises(ValueError, match="this image is broken"):
            inputs_of(feed.next())
