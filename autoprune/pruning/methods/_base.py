"""What a pruning method is: what it can prune, its part of a search space, and its part of a running trial."""

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from autoprune.config.dimension import Dimension, Pick, Value, value_of
from autoprune.pruning.plan import PruningPlan
from autoprune.trial import PruningConfig, Scalar, TrialResult

if TYPE_CHECKING:
    from torch import nn

    from autoprune.pruning.apply import Pruned


class MethodSpace(ABC):
    """One method's part of a search space, for one network.

    What it gives as a mapping are fields of :class:`PruningConfig`; no two methods share one.
    """

    @abstractmethod
    def dimensions(self) -> list[Dimension]:
        """Return the method's dimensions, conditional ones included; each name begins with the method's and a dot."""

    @abstractmethod
    def suggest(self, pick: Pick) -> dict[str, Any]:
        """Ask for every value that applies, always in the same order, and return what the trial is to prune."""

    @abstractmethod
    def smallest(self) -> dict[str, Any]:
        """Return what the most pruned network of the space loses."""

    @abstractmethod
    def structure(self, pruning: PruningConfig) -> Any:
        """Return what the method leaves of a network; equal for two configurations that leave the same."""

    @abstractmethod
    def values_of(self, pruning: PruningConfig, asked: Mapping[str, Scalar]) -> Iterator[tuple[str, Scalar]]:
        """Find the values that would suggest a configuration, as far as there are any.

        Args:
            pruning: Of a network with the same plan; it may come from another space.
            asked: The values, by name, that it was made from.

        Yields:
            Name of a dimension and its value, which may lie outside the dimension's domain.
        """

    def applies(self, name: str, params: Mapping[str, Scalar]) -> bool:
        """Whether one of the method's dimensions is asked for when the others have these values."""
        return True

    def first_guess(self, dimension: Dimension) -> Scalar:
        """Return the value that a person would try first."""
        return dimension.middle()


class MethodInTrial(ABC):
    """One method's part of a running trial.

    Channels and blocks leave together, in one surgery that is proved as a whole: ``autoprune.pruning.apply.prune``.
    ``apply`` follows it.
    """

    @abstractmethod
    def at(self, share: float) -> dict[str, Any]:
        """Return the fields of :class:`PruningConfig` that are due after a share, in [0, 1], of gradual pruning."""

    @abstractmethod
    def apply(self, pruned: "Pruned", pruning: PruningConfig) -> None:
        """Do the method's own part on a network whose channels and blocks are gone, and note what it has lost."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what a trial's checkpoint needs of it; no two methods share a key."""

    @abstractmethod
    def load_state_dict(self, model: "nn.Module", state: Mapping[str, Any]) -> None:
        """Go on with a network as it was when the state was taken."""

    def begin_gradually(self, model: "nn.Module") -> None:  # noqa: B027 - most methods need nothing here
        """Note what the network has lost already, where gradual pruning begins."""

    def after_step(self) -> None:  # noqa: B027 - most methods need nothing here
        """Undo what an optimizer step did to what is gone."""

    def outcome(self) -> dict[str, Any]:
        """Return fields that :class:`EpochReport` and :class:`TrialResult` share: what the network has and lacks."""
        return {}

    def left_dense(self, model: "nn.Module") -> tuple[str, ...]:
        """Return the parameters that the method was to prune and could not."""
        return ()


class PruningMethod(ABC):
    """One way to prune a network.

    Attributes:
        name: The method's name in a space file.
        lowers: Names of the costs that it lowers; all others stay as they are.
    """

    name: ClassVar[str]
    lowers: ClassVar[frozenset[str]]

    @abstractmethod
    def prunable(self, plan: PruningPlan) -> tuple[str, ...]:
        """Return what of a network it can prune, by the names that patterns in ``layers`` match."""

    @abstractmethod
    def space(self, settings: Any, plan: PruningPlan, problems: list[str]) -> MethodSpace:
        """Make the method's part of a search space.

        Args:
            settings: Its section of the space file; ``None`` if the file does not use the method.
            problems: Mistakes in the section are added here, each as one sentence.
        """

    @abstractmethod
    def in_trial(self, pruning: PruningConfig, parent_widths: Mapping[str, int]) -> MethodInTrial:
        """Make the method's part of a trial.

        Args:
            pruning: What the trial is to prune.
            parent_widths: Group -> channels of the network that it starts from.
        """

    @abstractmethod
    def can_follow(
        self, parent: TrialResult, parent_pruning: PruningConfig, pruning: PruningConfig, plan: PruningPlan
    ) -> bool:
        """Whether a trial's network still has all that another trial is to keep."""

    def _rules(self, settings: Any, plan: PruningPlan, problems: list[str]) -> dict[str, Any]:
        """Layer name -> the last rule of ``layers`` whose pattern matches it, or ``None``.

        A layer that can't be pruned anyway may be skipped.
        """
        if settings is None:
            return {}
        names = self.prunable(plan)
        rules: dict[str, Any] = dict.fromkeys(names)
        left_out = [item.module for item in plan.left_out]
        for pattern, rule in settings.layers.items():
            matched = fnmatch.filter(names, pattern)
            if not matched and not (rule == "skip" and fnmatch.filter(left_out, pattern)):
                problems.append(
                    f"pruning ({self.name}).layers: '{pattern}' matches none of the layers that can be pruned: "
                    f"{', '.join(names) or 'there are none'}."
                )
            rules.update(dict.fromkeys(matched, rule))
        return rules

    def _ratios(self, settings: Any, plan: PruningPlan, problems: list[str]) -> dict[str, Value]:
        """The ratio of every layer that is not skipped."""
        return {
            name: value_of(f"{self.name}.ratio.{name}", settings.ratio if rule is None else settings.ratio_under(rule))
            for name, rule in self._rules(settings, plan, problems).items()
            if rule != "skip"
        }


def dimensions_among(values: Sequence[Value]) -> list[Dimension]:
    """Return the dimensions among some values."""
    return [value for value in values if isinstance(value, Dimension)]
