"""The figures of the dense network, which a study compares its trials with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autoprune.errors import StudyError
from autoprune.study.folder import StudyFolder
from autoprune.trial import Cost, Latency, to_dict


@dataclass(frozen=True)
class DenseReference:
    """What the dense network reaches and costs, measured before the first trial.

    Attributes:
        metric: The task's metric on the validation split.
        loss: Mean loss on the validation split.
        latency: How ``cost.latency_ms`` was measured; every latency of the study uses its number of threads.
        epochs: Epochs that it was trained; 0 where the space file names its weights.
        metric_se: Standard error of ``metric``; ``None`` where it is not known.
    """

    metric: float
    loss: float
    cost: Cost
    latency: Latency
    epochs: int = 0
    metric_se: float | None = None

    def value(self, name: str) -> float:
        """Return one cost by its name.

        Raises:
            KeyError: If there is no such cost, or it was not measured.
        """
        return self.cost.figures()[name]

    def figures(self, metric: str) -> dict[str, float]:
        """Return all figures by name: the metric, the loss, and the costs as :meth:`Cost.figures` gives them.

        Args:
            metric: What to call the metric, such as its name or its column.
        """
        return {metric: self.metric, "loss": self.loss, **self.cost.figures()}

    @classmethod
    def read(cls, folder: StudyFolder) -> "DenseReference":
        """Read the reference of a study.

        Raises:
            StudyError: If its file is missing or damaged.
        """
        record = folder.read_json(folder.reference)
        try:
            dense = record["dense"]
            error = dense.get("metric_se")
            return cls(
                metric=float(dense["metric"] if "metric" in dense else dense["accuracy"]),  # schema 1 has the latter
                loss=float(dense["loss"]),
                cost=Cost(**_only(Cost, record["cost"])),
                latency=Latency(**_only(Latency, record["latency"])),
                epochs=int(record["epochs"]),
                metric_se=None if error is None else float(error),
            )
        except (KeyError, TypeError, ValueError) as error:
            cause = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise StudyError(
                f"{folder.reference}: not a record of the dense network: {cause}. Restore it, or start the study anew."
            ) from None

    def write(self, folder: StudyFolder) -> None:
        """Write the reference to the study's folder; raises UnwritableError if that can't be done."""
        folder.write_json(
            folder.reference,
            {
                "dense": {"metric": self.metric, "metric_se": self.metric_se, "loss": self.loss} | self.cost.figures(),
                "epochs": self.epochs,
                "latency": asdict(self.latency),
                "cost": to_dict(self.cost),
            },
        )


def _only(kind: type[Cost] | type[Latency], record: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a record that a class has; a newer autoprune may have written more."""
    return {name: value for name, value in record.items() if name in kind.__dataclass_fields__}
