"""Joint schedule: the learning rate and the batch size of a step, decided together."""

from collections.abc import Sequence

from autoprune.training.schedules.batch_size import batch_size_at
from autoprune.training.schedules.lr import rise_and_decay
from autoprune.trial import ScheduleConfig


def lr_and_batch_size(
    lr_schedule: ScheduleConfig,
    batch_size_schedule: ScheduleConfig,
    progress: float,
    epochs: int,
    validation_losses: Sequence[float] = (),
    reference_batch_size: int | None = None,
    n_train: int | None = None,
) -> tuple[float, int]:
    """Return the learning rate and batch size of the optimizer step that starts at ``progress``.

    With the batch-size schedule ``with_lr`` the batch stays at its start size while the rate rises (warm-up, first part
    of one_cycle). From there, mode ``grow`` divides the batch by the factor that the rate would have been multiplied
    with, and the rate takes only what rounding and ``max_size`` leave over: rate / batch (the noise scale) stays on the
    path that the learning-rate schedule describes at the start size. Mode ``shrink`` lowers both together: the noise
    scale stays where it is until ``min_size`` is reached.

    Args:
        progress: Share of all training examples seen before the step, in [0, 1).
        epochs: Epochs of the whole training.
        validation_losses: One loss per epoch done, oldest first; only plateau looks at them.
        reference_batch_size: The batch size that ``lr`` is meant for: the rate is multiplied by batch / reference. For
            with_lr, whose modes set the ratio of rate and batch themselves, by start / reference throughout. ``None``
            scales nothing.
        n_train: Training examples; no batch is larger.

    Returns:
        ``(lr, batch_size)``.

    Raises:
        AutopruneError: If a kind or a parameter is not in its registry.
        ValueError: If ``progress`` is outside [0, 1).

    Source:
        Noise scale and growing batches: Smith et al. 2018, https://arxiv.org/abs/1711.00489, sections 2 and 3.
        Linear scaling: Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 2.1.
    """
    rise, decay = rise_and_decay(lr_schedule, progress, epochs, validation_losses)
    lr = float(lr_schedule.params["lr"]) * rise * decay
    batch_size = batch_size_at(batch_size_schedule, progress, epochs, decay, n_train)
    scaled_size = batch_size
    if batch_size_schedule.kind == "with_lr":
        scaled_size = batch_size_at(batch_size_schedule, progress, epochs, 1.0, n_train)
        if batch_size_schedule.params.get("mode", "grow") == "grow":
            lr *= batch_size / scaled_size
    if reference_batch_size is not None:
        lr *= scaled_size / reference_batch_size
    return lr, batch_size
