"""Every number that the cost-aware sampler is tuned by, with its unit and the reason for its value."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoprune.search.samplers.cost_aware.candidates import CandidateGenerator
    from autoprune.search.samplers.cost_aware.costs import KnownCosts
    from autoprune.search.samplers.cost_aware.score_model import ScoreModel


@dataclass(frozen=True)
class InitialDesignSettings:
    """The first trials of a tree: a descent in cost from the widest network to the smallest one."""

    enabled: bool = True
    """Whether the trials of the initial design are run. It is planned in any case, because its plan also sets the least
    epochs of later candidates."""

    budget_share: float = 0.3
    """Share of the study's epochs that the descent may take, in (0, 1). The rest is left for choices by the model."""

    max_steps: int = 12
    """Most steps of the descent, at least 1. With more of them, neighbouring networks differ too little to be worth
    a trial each."""

    steps_per_sqrt_epoch: float = 1.5
    """Steps per square root of the descent's epochs. So a larger budget buys both more steps and longer ones."""

    first_share: float = 0.8
    """Share of the dense cost that the first step leaves, in (0, 1]. A network recovers from such a cut within few
    epochs."""

    min_last_share: float = 1e-3
    """Share of the dense cost below which no step goes, in (0, 1). It keeps the logarithm of the cost finite."""

    step_growth: float = 1.25
    """Exponent of the steps' positions on the log axis of the cost. Above 1 the steps grow, because wide networks
    matter more on a linear axis."""

    cut_strength: float = 0.5
    """How strongly a step follows the sensitivity map: 0 is the uniform path, 1 the sensitive path. Halfway, an error
    of the map does limited harm."""

    extra_narrow_epochs: float = 2.0
    """Epochs of the narrow half of the steps beyond those of the first one, as a multiple of the latter. Narrow
    networks have more to recover."""

    train_on_factor: float = 2.0
    """Epochs for which a network of the descent is trained on at the end, as a multiple of its step's epochs. A
    schedule that starts anew needs longer than the last one (warm restarts double their periods)."""

    lr_positions: tuple[float, ...] = (0.5, 0.2, 0.0)
    """Learning rates of the first step, as positions on their range's axis, in [0, 1]. They are tried in turn until
    one does no harm, or is no better than the one before. Inherited weights train best at high rates, until they
    break."""

    last_lr_position: float = 0.9
    """Position of the last step's learning rate on its range's axis, in [0, 1]. The rates of the steps between rise
    to it, because narrow networks bear higher rates than wide ones."""

    max_first_drop: float = 0.02
    """Drop in score at the first step, as a share of the dense score, above which its learning rate counts as
    too high. A cut by a fifth alone costs less."""

    n_top_shares: int = 50
    """Shares of the dense cost, evenly spaced on a log axis, among which the greatest under all constraints is sought.
    Neighbours of 50 differ by a few percent."""


@dataclass(frozen=True)
class WidthPathSettings:
    """The paths of widths from the dense network to the smallest one."""

    n_points: int = 400
    """Most points at which a path is worked out. Between so many, neighbours differ by a channel or two."""

    tie_drop: float = 1e-3
    """Drop in score, in units of the score, that is added over the whole range of a group. So among widths that cost
    nothing the wider one counts as the gentler."""


@dataclass(frozen=True)
class CandidateSettings:
    """How candidates for a trial are drawn."""

    n_candidates: int = 400
    """Candidates drawn for each trial. Scoring so many takes a fraction of a second."""

    descend_share: float = 0.4
    """Share of the candidates that go down a width path, in [0, 1]. It is the largest, because such cuts have two
    numbers instead of one a group."""

    train_on_share: float = 0.2
    """Share of the candidates that keep their parent's widths, in [0, 1]. A good network often gains most by more
    training."""

    mutate_share: float = 0.2
    """Share of the candidates that change the widths of a few groups of their parent, in [0, 1]. They find what no
    width path has."""

    cross_share: float = 0.1
    """Share of the candidates that take the narrower of two networks' widths in each group, in [0, 1]. They join what
    two networks of the front found out."""

    fill_share: float = 0.1
    """Share of the candidates whose cost is anywhere between dense and smallest, in [0, 1]. They keep gaps in the front
    from being overlooked."""

    ranked_share: float = 0.5
    """Share of the descending candidates that are cut by their parent's channel scores, where it has any, in [0, 1].
    The others follow the sensitivity map, so that neither source is relied on alone."""

    max_descend_strength: float = 1.4
    """Greatest strength by which a descending candidate follows the sensitivity map, drawn evenly from 0 on. Above 1 it
    goes further than the map, in case the map understates the differences."""

    min_kept_share: float = 0.5
    """Least share of its parent's cost that a candidate of a tree keeps, in (0, 1]. What is cut more at once does not
    recover."""

    min_epochs_share: float = 0.5
    """Least epochs of a candidate of a tree, as a share of the epochs that the initial design gives its cost. Shorter
    trials say little about what a network can reach."""

    n_mutated_groups: float = 2.0
    """Groups that a mutation changes on average, beyond the one that it always changes. So most of a good network stays
    as it is."""

    min_mutation_factor: float = 0.3
    """Least factor on a mutated width, in (0, 1]. Less would leave the group as the network's bottleneck."""

    max_mutation_factor: float = 1.7
    """Greatest factor on a mutated width where candidates may be wider than what they are drawn from; in a tree it
    is 1. It is as far above 1 as the least factor is below."""

    fill_jitter: float = 0.4
    """Standard deviation of the natural log of a factor on each width of a filling candidate. A factor of 1.5 is then
    one deviation, so that filling candidates leave the width paths."""

    front_training_probability: float = 0.3
    """Probability of copying the training of a random network of the front instead of the picked network's, in [0, 1].
    So good schedules spread over the front."""

    min_change_probability: float = 0.15
    """Least probability of changing each dimension of the training, in [0, 1]; otherwise one dimension changes on
    average. With many dimensions, more than one change a trial is needed to try them all."""

    fresh_change_share: float = 0.3
    """Share of those changes that draw a value from the whole range, in [0, 1]; the others move nearby. So no value is
    out of reach."""

    change_deviation: float = 0.15
    """Standard deviation of a nearby change, on a dimension's axis from 0 to 1. It is small enough to refine a value
    and large enough to be seen above the noise of training."""

    def __post_init__(self) -> None:
        total = sum(self.share_of_kind.values())
        if abs(total - 1) > 1e-8:
            raise ValueError(f"the shares of the kinds of candidates must add up to 1, got {total:g}.")

    @property
    def share_of_kind(self) -> dict[str, float]:
        """Kind of candidate -> share of the candidates. The keys are what a trial's record calls its origin."""
        return {
            "descend": self.descend_share,
            "train on": self.train_on_share,
            "mutate": self.mutate_share,
            "cross": self.cross_share,
            "fill": self.fill_share,
        }


@dataclass(frozen=True)
class KnownCostSettings:
    """The costs that do not follow from the widths alone, such as a latency."""

    min_learned: int = 6
    """Trained networks from which on such a cost is fitted to the measured ones. The fit has three coefficients, and
    needs twice as many points."""

    ridge: float = 1e-3
    """Ridge penalty of that fit, on logs of shares of dense. It keeps the fit solvable where the parameters and the
    MACs of all networks are proportional."""


@dataclass(frozen=True)
class FeatureSettings:
    """Weights that bring the features of a candidate to about unit size."""

    octaves_per_unit: float = 3.0
    """Halvings of the cost that make one unit. With three of them, most spaces span one to two units."""

    drop_weight: float = 2.0
    """Units for an expected drop of one unit of the score (all of an accuracy), by the sensitivity map. The expected
    drop matters more than a single width."""

    max_expected_drop: float = 2.0
    """Expected drop, in units of the score, above which all drops count alike. No network can lose more than all of its
    accuracy."""

    training_weight: float = 2.0
    """Units that the range of a training dimension spans. Training matters more than a single width."""

    width_weight: float = 0.5
    """Euclidean length, over all groups, of the features of one halving of every width. Single widths have little
    weight, because there are many of them, and the cost is a feature of its own."""

    min_cut_octaves: float = 0.01
    """Halvings of the cost from which on a trial counts as a cut of its parent. Less is rounding."""


@dataclass(frozen=True)
class ScoreModelSettings:
    """The Gaussian process that predicts scores."""

    max_fitted: int = 150
    """Latest trials that the kernel's parameters are fitted on. The time of the fit grows with the cube of their
    number."""

    max_conditioned: int = 500
    """Latest trials that a prediction takes into account. The time of a prediction grows with the square of their
    number."""

    likelihood_tolerance: float = 1e-4
    """Relative rise of the log likelihood below which the fit of the kernel's parameters ends. At scikit-learn's own
    tolerance it takes 36 evaluations instead of 14, to move a parameter on which the likelihood does not depend."""

    n_threads: int = 1
    """Threads of the linear algebra. More of them take twice as long on matrices as small as these, and take the
    trials' cores."""

    deviation_share: float = 0.2
    """Share of the predicted standard deviation that the acquisition uses, in [0, 1]. With all of it, the acquisition
    kept choosing the least explored regions, and did no better than a random choice: on digits the hypervolume came out
    at .428 and .427 on the log axis, as means of five seeds; with half of it at .429, with a fifth at .431, with none
    at .430."""

    n_outcomes: int = 9
    """Points of the Gauss-Hermite quadrature over a prediction's outcomes; odd, so that the median is one of them.
    Nine integrate polynomials up to degree 17 exactly."""

    scale_share: float = 0.5
    """Unit of the model's axis of scores, as a share of the median distance from the dense score. So half of the
    trials lie where the axis is bent."""

    min_scale: float = 1e-3
    """Least unit of that axis, as a share of the dense score. Smaller differences are noise."""

    matern_length: float = 3.0
    """Length of the Matern kernel at which its fit starts, in units of the features. At this length, trials that differ
    by a unit in several features still inform one another."""

    matern_length_bounds: tuple[float, float] = (0.5, 30.0)
    """Least and greatest length of the Matern kernel. Below, trials would tell nothing of one another; above, the
    linear part says the same."""

    matern_smoothness: float = 2.5
    """Order nu of the Matern kernel: 2.5 makes functions twice differentiable, the usual choice of Bayesian
    optimization."""

    linear_variance: float = 0.1
    """Variance of the linear trend at which its fit starts, as a share of the targets' variance. It starts below the
    Matern kernel's, which is 1, because the trend is the cruder part."""

    linear_offset_bounds: tuple[float, float] = (1e-2, 1e2)
    """Least and greatest offset of the linear trend, in units of the features. The range is wide enough not to bind."""

    variance_bounds: tuple[float, float] = (1e-3, 1e3)
    """Least and greatest variance of the Matern kernel and of the trend, as shares of the targets' variance. The range
    is wide enough not to bind."""

    noise_variance: float = 0.1
    """Variance of a trial's noise at which its fit starts, as a share of the targets' variance. It is a usual start;
    the fit moves it."""

    noise_variance_bounds: tuple[float, float] = (1e-3, 10.0)
    """Least and greatest variance of the noise, as shares of the targets' variance. Below, the fit would interpolate
    noise."""


@dataclass(frozen=True)
class AcquisitionSettings:
    """What a candidate is worth."""

    min_trials: int = 5
    """Finished trials from which on scores are predicted. Before, a candidate is taken at random, because the model
    has several parameters to fit."""

    look_ahead_steps: int = 3
    """Steps of the descent that is imagined behind each candidate of a tree. Each multiplies the time of a suggestion,
    and predictions of predictions soon mean little."""

    look_ahead_kept_share: float = 0.65
    """Share of the cost that an imagined step keeps, in (0, 1). It is about a step of the initial design."""

    look_ahead_strength: float = 0.7
    """How strongly an imagined step follows the sensitivity map: 0 is the uniform path, 1 the sensitive path. It is the
    mean of what descending candidates draw."""

    max_front: int = 40
    """Points of the front that divide the cost axes, where there are several axes; with one axis all points do. The
    number of cells grows with their number to the power of the axes."""

    floor_score_share: float = 0.5
    """Share of the dense score below which a network is worth nothing, where the space file limits no drop. Few
    would use a network that lost half of its accuracy, or whose error is half as large again."""

    floor_drop_factor: float = 2.0
    """Multiple of the drop that the space file allows, below which a network is worth nothing. A network somewhat below
    the limit may still be a good parent."""


@dataclass(frozen=True)
class Replacements:
    """Classes in place of the sampler's own, for experiments; ``None`` leaves its own."""

    known_costs: "type[KnownCosts] | None" = None
    """Tells what candidates cost."""

    candidate_generator: "type[CandidateGenerator] | None" = None
    """Draws candidates."""

    score_model: "type[ScoreModel] | None" = None
    """Predicts scores."""


@dataclass(frozen=True)
class CostAwareSettings:
    """All settings of the cost-aware sampler, by the part that they belong to.

    Example:
        >>> CostAwareSettings(acquisition=AcquisitionSettings(look_ahead_steps=0)).acquisition.look_ahead_steps
        0
    """

    initial_design: InitialDesignSettings = field(default_factory=InitialDesignSettings)
    width_paths: WidthPathSettings = field(default_factory=WidthPathSettings)
    candidates: CandidateSettings = field(default_factory=CandidateSettings)
    costs: KnownCostSettings = field(default_factory=KnownCostSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    score_model: ScoreModelSettings = field(default_factory=ScoreModelSettings)
    acquisition: AcquisitionSettings = field(default_factory=AcquisitionSettings)
    replacements: Replacements = field(default_factory=Replacements)
