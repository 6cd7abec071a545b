"""Reading a space file: what is accepted, and the message and line of every mistake."""

from pathlib import Path

import pytest

from autoprune.config import Ceiling, Range, SearchConfig, load_config, parse_config
from autoprune.config.metric import METRICS
from autoprune.config.training import Training
from autoprune.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))

GOOD = """
study: digits
task:
  model: autoprune.zoo:small_cnn
  weights: null
  data: autoprune.datasets:digits
objectives: [accuracy, flops]
constraints: {accuracy_drop: 0.03, flops: 0.9x, latency_ms: 4}
training:
  epochs: 10
  optimizer: {name: sgd, momentum: 0.9, weight_decay: {low: 1.0e-5, high: 1.0e-3, log: true}}
  lr_schedule:
    - {kind: constant,    lr: {low: 0.001, high: 0.3, log: true}}
    - {kind: exponential, lr: {low: 0.001, high: 0.3, log: true}, gamma: {low: 0.7, high: 0.99}}
    - {kind: step,        lr: {low: 0.001, high: 0.3, log: true}, factor: [0.1, 0.3], every: [2, 4]}
    - {kind: cosine,      lr: {low: 0.001, high: 0.3, log: true}, warmup: [0.0, 0.1]}
  batch_size_schedule:
    - {kind: constant, size: [32, 64, 128]}
    - {kind: step,     start: [32, 64], factor: [2, 0.5], every: [2, 4]}
pruning:
  - method: neuron
    criterion: [l1, l2, taylor, activation]
    ratio: {low: 0.0, high: 0.9}
    layers: {"head": skip, "stage3.*": {high: 0.95}}
  - method: layer
  - method: weight
    ratio: {low: 0.0, high: 0.8}
search: {trials: 60, sampler: auto, seed: 0}
resources: {workers: auto, gpus_per_trial: 0}
"""

LR_KINDS = "constant, exponential, step, cosine, one_cycle, polynomial, plateau"

# After "#!" stand the messages that the line must get, parted by "|".
BAD = """
study: ../digits  #! study must start with a letter or digit and hold only letters, digits, '.', '_' and '-', got '../digits'.
task:  #! task.data is missing.
  model: autoprune.zoo.small_cnn  #! task.model must have the form module:callable, got 'autoprune.zoo.small_cnn'.
  batch_dim: none  #! task.batch_dim must be left out: a search trains on batches of examples, the first dimension. Plan a network without one in Python: autoprune.plan(..., batch_dim=None).
  dta: a:b  #! task: unknown key 'dta' (did you mean 'data'?). Known: model, data, weights, loss, distillation_loss, metric, augment, frozen.
  loss: 3  #! task.loss must be a name such as mse, module:callable, or a mapping with name or callable, and args, got 3.
  metric: {args: [1]}  #! task.metric needs a name out of: {metrics}; or a callable, with name and direction. | task.metric.args: input should be a valid dictionary.
  weights: 3  #! task.weights: input should be a valid string, got 3.
objectives:  #! objectives names 'accuracy' twice.
  - accuracy
  - accuracy
  - flop  #! objectives[2]: unknown objective 'flop' (did you mean 'flops'?). Known: {objectives}.
constraints:
  accuracy_drop: -0.03  #! constraints.accuracy_drop must be a number of 0 or more, or a share of dense such as 2%, got -0.03.
  flops: 0.9y  #! constraints.flops must be a number or a multiple of dense such as 0.5x, got '0.9y'.
  params: true  #! constraints.params must be a number or a multiple of dense such as 0.5x, got True.
  macs: -2x  #! constraints.macs: input should be greater than 0, got '-2x'.
  size_bytes: .inf  #! constraints.size_bytes: input should be a finite number, got inf.
  latency_mss: 4  #! constraints: unknown key 'latency_mss' (did you mean 'latency_ms'?). Known: {constraints}.
dense:
  epochs: 1.5  #! dense.epochs: input should be a valid integer, got 1.5.
  lr_schedule:
    kind: constant
    lr: [0.1, 0.2]  #! dense.lr_schedule.lr must be a fixed value: the dense network is trained once.
    warmup: {low: 0, high: 0.1}  #! dense.lr_schedule.warmup must be a fixed value: the dense network is trained once.
  optimizer: [{name: sgd}, {name: adam}]  #! dense.optimizer must be one, not a list: the dense network is trained one way only.
training:
  epochs: {low: 0, high: 2.5, step: 0.5}  #! training.epochs.high must be an integer in [1, inf), got 2.5. | training.epochs.low must be an integer in [1, inf), got 0. | training.epochs.step must be an integer, got 0.5.
  max_device_batch: 0  #! training.max_device_batch: input should be greater than or equal to 1, got 0.
  precision: float16  #! training.precision: unknown precision 'float16' (did you mean 'float32'?). Known: float32, bf16, fp16.
  channels_last: 1  #! training.channels_last: input should be a valid boolean, got 1.
  distillation: {weight: [0, 1.5], temperature: 0.5, T: 2}  #! training.distillation.temperature must be in [1, inf), got 0.5. | training.distillation.weight[1] must be in [0, 1], got 1.5. | training.distillation: unknown key 'T'. Known: weight, temperature.
  compil: true  #! training: unknown key 'compil' (did you mean 'compile'?). Known: {training}.
  optimizer:
    - {name: sdg}  #! training.optimizer[0]: unknown name 'sdg' (did you mean 'sgd'?). Known: sgd, adam, adamw.
    - {name: sgd, nesterov: 1}  #! training.optimizer[1].nesterov: unknown value '1'. Known: False, True.
  lr_schedule:  #! training.lr_schedule names the kind 'constant' twice; put the values of both into one.
    - {kind: constant, lr: {low: 0.5, high: 0.3, log: true}}  #! training.lr_schedule[0].lr: low <= high must hold, but got low=0.5, high=0.3.
    - kind: exponential
      lr: {low: 0.001, high: 0.3, lg: true}  #! training.lr_schedule[1].lr: unknown key 'lg' (did you mean 'log'?). Known: low, high, log, step.
      gamma: {low: -1, high: 1.99}  #! training.lr_schedule[1].gamma.high must be in (0, 1], got 1.99. | training.lr_schedule[1].gamma.low must be in (0, 1], got -1.
    - kind: step  #! training.lr_schedule[2].every is missing.
      lr: {low: x, high: null}  #! training.lr_schedule[2].lr.high must be a number, got None. | training.lr_schedule[2].lr.low must be a number, got 'x'.
      factor: [0.1, x, [1]]  #! training.lr_schedule[2].factor[1] must be in (0, 1], got 'x'. | training.lr_schedule[2].factor[2] must be in (0, 1], got [1].
      evry: 2  #! training.lr_schedule[2]: unknown key 'evry' (did you mean 'every'?). Known: lr, warmup, factor, every, kind.
    - {kind: cosin, lr: 1}  #! training.lr_schedule[3]: unknown kind 'cosin' (did you mean 'cosine'?). Known: {lr_kinds}.
    - {lr: 1}  #! training.lr_schedule[4] needs a 'kind'. Known: {lr_kinds}.
    - {kind: constant, lr: null}  #! training.lr_schedule[5].lr must be in (0, inf), got None.
    - {kind: plateau, lr: .nan, patience: [1, 1.0]}  #! training.lr_schedule[6].lr must be in (0, inf), got nan. | training.lr_schedule[6].patience names 1.0 twice. | training.lr_schedule[6].patience[1] must be an integer in [0, inf), got 1.0.
  batch_size_schedule: {kind: constant, size: []}  #! training.batch_size_schedule.size must be one value or a list of some, got an empty list.
pruning:
  - method: neuron
    criterion: [l1, tailor, l3]  #! pruning[0].criterion[1]: unknown criterion 'tailor' (did you mean 'taylor'?). Known: {criteria}. | pruning[0].criterion[2]: unknown criterion 'l3'. Known: {criteria}.
    ratio: {low: 0.0, high: 1.2}
    layers:
      head: skp  #! pruning[0].layers.head: input should be 'skip', got 'skp'.
      stage2.*: {hih: 0.95}  #! pruning[0].layers.stage2.*: unknown key 'hih' (did you mean 'high'?). Known: low, high, log, step.
      stage3.*: [0.1, 1]  #! pruning[0].layers.stage3.*[1] must be in [0, 1), got 1.
    ratio: 3  #! pruning[0].ratio must be in [0, 1), got 3. | pruning[0].ratio stands twice (first in line 55).
  - method: layr  #! pruning[1]: unknown method 'layr' (did you mean 'layer'?). Known: neuron, layer, weight.
  - method: layer
    layers:
      0: skip  #! pruning[2].layers.0 must be text: put the layer's name in quotes.
  - method: weight
    scope: {low: 0, high: 1}  #! pruning[3].scope must be one name or a list of names, got a range.
search:
  trials: many  #! search.trials: input should be a valid integer, got 'many'.
  ladder: true  #! search.ladder must be auto or an integer in [0, inf), got True.
  sampler: atpe  #! search.sampler: unknown sampler 'atpe' (did you mean 'tpe'?). Known: auto, cost_aware, tpe, nsga2, nsga3, gp, random, qmc, module:callable.
certify:
  seeds: 0  #! certify.seeds: input should be greater than or equal to 1, got 0.
resources:
  workers: 0  #! resources.workers must be auto or an integer in [1, inf), got 0.
  cpus_per_trial: 0.5  #! resources.cpus_per_trial: input should be a valid integer, got 0.5.
  gpus_per_trial: 1.5  #! resources.gpus_per_trial must be 0, a share of a GPU in [0.0001, 1], or a whole number, got 1.5.
  custom:
    GPU: 1  #! resources.custom.GPU must not be one of Ray's own resources: set resources.gpus_per_trial instead.
    licence: 0  #! resources.custom.licence must be a number of 0.0001 or more, got 0.
    slot: one  #! resources.custom.slot must be a number of 0.0001 or more, got 'one'.
    free: true  #! resources.custom.free must be a number of 0.0001 or more, got True.
sarch:  #! the file: unknown key 'sarch' (did you mean 'search'?). Known: {sections}.
"""  # noqa: E501


def parse(text: str) -> SearchConfig:
    return parse_config(text, "space.yaml")


def parse_with(line: str) -> SearchConfig:
    return parse(f"study: s\ntask: {{model: 'a:b', data: 'a:c'}}\n{line}\n")


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.problems


def test_design_example() -> None:
    spec = parse(GOOD)
    assert (spec.study, spec.task.model.callable, spec.task.model.args) == ("digits", "autoprune.zoo:small_cnn", {})
    assert spec.directions == ["maximize", "minimize"]
    assert spec.constraints.ceilings == {
        "flops": Ceiling(value=0.9, relative=True),
        "latency_ms": Ceiling(value=4.0),
    }
    assert [schedule.kind for schedule in spec.training.lr_schedule] == ["constant", "exponential", "step", "cosine"]
    assert spec.training.lr_schedule[2].every == [2, 4]
    assert spec.training.optimizer[0].weight_decay == Range(low=1e-5, high=1e-3, log=True)
    assert spec.method("neuron").layers["head"] == "skip"
    assert spec.method("neuron").layers["stage3.*"].high == 0.95
    assert (spec.search.trials, spec.search.start, spec.resources.workers) == (60, "auto", "auto")


def test_every_mistake_at_once_with_its_line() -> None:
    text = BAD.replace("{lr_kinds}", LR_KINDS)
    text = text.replace("{objectives}", "accuracy, params, nonzero_params, size_bytes, flops, latency_ms")
    text = text.replace("{constraints}", "metric_drop, params, nonzero_params, size_bytes, macs, flops, latency_ms")
    text = text.replace("{criteria}", "l1, l2, bn_scale, taylor, fisher, fpgm, lamp, activation, apoz, obs, random")
    sections = "study, task, objectives, constraints, dense, training, pruning, search, certify, resources"
    text = text.replace("{sections}", sections).replace("{training}", ", ".join(Training.model_fields))
    text = text.replace("{metrics}", ", ".join(METRICS))
    expected = [
        f"space.yaml:{number}: {message.strip()}"
        for number, line in enumerate(text.splitlines(), start=1)
        for message in line.partition("#!")[2].split("|")
        if message.strip()
    ]
    assert list(problems_of(text)) == expected


def test_error_text_is_one_mistake_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("study: s\ntask: {model: m, data: d}\n")
    assert len(str(caught.value).splitlines()) == len(caught.value.problems) == 2


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_space_file(path: Path) -> None:
    assert load_config(path).study == path.stem


def test_digits_is_shipped() -> None:
    assert "digits.yaml" in [path.name for path in SHIPPED]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("study: [a", "2: not valid YAML: expected ',' or ']', but got '<stream end>'."),
        ("study: a\ttask: b: c", "1: not valid YAML: found character '\\t' that cannot start any token."),
        ("a: b\n---\nc: d", "2: not valid YAML: but found another document."),
        ("study: s\ntask: \0", "2: not valid YAML: special characters are not allowed."),
        ("study: s\n? [a]\n: b", "2: not valid YAML: found unhashable key."),
        ("study: s\n? &a [*a]\n: b", "2: not valid YAML: found unhashable key."),
        ("study: *nowhere", "1: not valid YAML: found undefined alias 'nowhere'."),
        ("study: !!int foo", "1: not valid YAML: invalid literal for int() with base 10: 'foo'."),
        ("study: !!python/name:os.system", "1: not valid YAML: could not determine a constructor for the tag"),
        ("study: &a [*a]", "1: not valid YAML: maximum recursion depth exceeded"),
        ("", "1: a space file is a mapping with keys such as study and task, got nothing."),
        ("- study", "1: a space file is a mapping with keys such as study and task, got list."),
    ],
)
def test_not_yaml(text: str, problem: str) -> None:
    (told,) = problems_of(text + "\n")
    assert told.startswith(f"space.yaml:{problem}")


def test_a_merged_key_that_stands_again_overrides_and_is_no_repetition() -> None:
    told = problems_of("study: s\ntask: &a {modl: 1}\ntask2: {<<: *a, modl: 2}\ntask: 3\n")
    assert [problem for problem in told if "stands twice" in problem] == [
        "space.yaml:4: task stands twice (first in line 2)."
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "training:",
            "training must be a mapping with keys out of: epochs, optimizer, lr_schedule, batch_size_schedule",
        ),
        ("dense: 3", "dense must be a mapping with keys out of: epochs, optimizer, lr_schedule, batch_size."),
        (
            "training: {lr_schedule: []}",
            "training.lr_schedule: list should have at least 1 item after validation, not 0.",
        ),
        ("training: {lr_schedule: cosine}", f"training.lr_schedule needs a 'kind'. Known: {LR_KINDS}."),
        (
            "pruning: [{method: layer, importance: angel}]",
            "pruning[0].importance: input should be 'loss' or 'angular', got 'angel'.",
        ),
        ("pruning: []", "pruning: list should have at least 1 item after validation, not 0."),
        ("objectives: accuracy", "objectives must be a list of two or three out of: accuracy, params,"),
        ("objectives: [accuracy]", "objectives must be a list of two or three out of: accuracy, params,"),
        (
            "objectives: [flops, params]",
            "objectives must hold 'accuracy', the metric: without it the smallest network is best.",
        ),
        ("3: 4", "3: keys should be strings."),
        ("training: {precision: [bf16, fp16]}", "training.precision: unknown precision '['bf16', 'fp16']'. Known:"),
        ("resources: {gpus_per_trial: -1}", "resources.gpus_per_trial: input should be greater than or equal to 0"),
        ("resources: {gpus_per_trial: 0.00001}", "resources.gpus_per_trial must be 0, a share of a GPU in [0.0001, 1]"),
        ("resources: {custom: licence}", "resources.custom must be a mapping from names of Ray resources to amounts"),
        ("resources: {custom: {3: 1}}", "resources.custom must have texts as names, got 3."),
        ("training: {epochs: {low: 2}}", "training.epochs.high is missing."),
        ("training: {<<: {epochs: 0}}", "training.epochs must be an integer in [1, inf), got 0."),
        ("pruning: [{method: neuron, ratio: 0.5, layers: {a: {high: 0.6}}}]", "pruning[0].layers.a.low is missing."),
        ("pruning: [{method: neuron, layers: {a: {high: 1}}}]", "pruning[0].layers.a.high must be in [0, 1), got 1."),
        (
            "pruning: [{method: neuron, layers: {a: {log: true}}}]",
            "pruning[0].layers.a: low > 0 must hold when log is true, got 0.0.",
        ),
        (
            "pruning: [{method: weight, layers: {a: {low: 0.9}}}]",
            "pruning[0].layers.a: low <= high must hold, but got low=0.9, high=0.8.",
        ),
        (
            "pruning: [{method: weight, scope: global, layers: {a: 0.3, b: skip}}]",
            "pruning[0].layers.a must be skip: with scope global, one ratio holds for all layers.",
        ),
        (
            "pruning: [{method: weight, scope: [lamp, global], layers: {a: 0.3}}]",
            "pruning[0].layers.a must be skip: with scope lamp or global, one ratio holds for all layers.",
        ),
        (
            "pruning: [{method: weight, pattern: 2:4, ratio: 0.3, layers: {a: skip}}]",
            "pruning[0].ratio must be left out: pattern 2:4 gives the ratio.",
        ),
        (
            "pruning: [{method: weight, pattern: ['2:4'], scope: lamp}]",
            "pruning[0].scope must be left out: pattern 2:4 gives the ratio.",
        ),
        (
            "pruning: [{method: weight, pattern: 2:4, layers: {a: 0.3}}]",
            "pruning[0].layers.a must be skip: pattern 2:4 gives the ratio.",
        ),
        (
            "pruning: [{method: weight, pattern: [none, 4:2]}]",
            "pruning[0].pattern[1]: unknown pattern '4:2'. Known: none, 2:4.",
        ),
    ],
)
def test_mistake(line: str, problem: str) -> None:
    (told,) = problems_of(f"study: s\ntask: {{model: 'a:b', data: 'a:c'}}\n{line}\n")
    assert told.startswith(f"space.yaml:3: {problem}")


def test_an_own_loss_needs_its_own_distillation_loss() -> None:
    task = "task: {model: 'a:b', data: 'a:c', loss: 'a:d'"
    distillation = "training: {distillation: {weight: [0, 0.5]}}"
    assert problems_of(f"study: s\n{task}}}\n{distillation}\n") == (
        "space.yaml:3: training.distillation.weight needs task.distillation_loss unless task.loss is cross_entropy: "
        "how to compare two networks' outputs.",
    )
    assert parse(f"study: s\n{task}, distillation_loss: 'a:e'}}\n{distillation}\n").task.distillation_loss is not None
    assert parse(f"study: s\n{task}}}\ntraining: {{distillation: {{weight: 0}}}}\n").training.distillation.weight == 0


def test_duplicated_key_alone_is_an_error() -> None:
    assert problems_of("study: s\ntask: {model: 'a:b', data: 'a:c'}\nstudy: s\n") == (
        "space.yaml:3: study stands twice (first in line 1).",
    )


@pytest.mark.parametrize(
    ("written", "number"), [("1e-5", 1e-5), ("1E-5", 1e-5), ("1.e-5", 1e-5), ("1.0e-5", 1e-5), ("+2e-1", 0.2), ("1", 1)]
)
def test_numbers_as_people_write_them(written: str, number: float) -> None:
    spec = parse_with(f"training: {{lr_schedule: {{kind: constant, lr: {written}}}}}")
    assert spec.training.lr_schedule[0].lr == number


@pytest.mark.parametrize("written", ["2:4", "'2:4'", "[2:4]", "[none, 2:4]"])
def test_a_pattern_is_a_text(written: str) -> None:
    pattern = parse_with(f"pruning: {{method: weight, pattern: {written}}}").method("weight").pattern
    assert (pattern if isinstance(pattern, str) else pattern[-1]) == "2:4"


def test_with_a_pattern_as_one_choice_the_ratio_and_scope_stay() -> None:
    method = parse_with(
        "pruning: {method: weight, pattern: [none, 2:4], scope: [layer, lamp], ratio: 0.3, layers: {a: 0.4}}"
    ).method("weight")
    assert (method.ratio, method.scope, method.layers) == (0.3, ["layer", "lamp"], {"a": 0.4})


def test_a_date_is_a_name() -> None:
    assert parse("study: 2024-13-45\ntask: {model: 'a:b', data: 'a:c'}\n").study == "2024-13-45"


@pytest.mark.parametrize(
    ("written", "limit"),
    [("4", 4.0), ("0.5x", 50.0), ("'0.5 x'", 50.0), ("5e-1x", 50.0), (".5x", 50.0), ("2.x", 200.0)],
)
def test_ceiling(written: str, limit: float) -> None:
    spec = parse_with(f"constraints: {{latency_ms: {written}}}")
    assert spec.constraints.ceilings["latency_ms"].limit(dense=100.0) == limit


def test_certification_is_off_unless_named() -> None:
    assert parse_with("certify: null") == parse_with("")
    certify = parse_with("certify: {}").certify
    assert certify is not None
    assert certify.seeds == 3
    assert problems_of("study: s\ntask: {model: 'a:b', data: 'a:c'}\ncertify: 3\n") == (
        "space.yaml:3: certify must be a mapping with keys out of: seeds.",
    )


def test_numbers_are_as_torch_has_them_unless_told_otherwise() -> None:
    training, resources = parse_with("").training, parse_with("").resources
    assert (training.precision, training.channels_last, training.compile) == ("float32", False, False)
    assert (resources.cpus_per_trial, resources.gpus_per_trial, resources.custom) == (None, 0, {})


def test_one_section_may_stand_for_a_list_of_one() -> None:
    one = parse_with("pruning: {method: layer}\ntraining: {lr_schedule: {kind: constant, lr: 0.1}}")
    listed = parse_with("pruning: [{method: layer}]\ntraining: {lr_schedule: [{kind: constant, lr: 0.1}]}")
    assert one == listed


def test_callable_with_arguments() -> None:
    spec = parse("study: s\ntask: {model: {callable: 'a:B.c', args: {depth: [3, 4]}}, data: 'a:c'}\n")
    assert (spec.task.model.callable, spec.task.model.args) == ("a:B.c", {"depth": [3, 4]})


def test_override_keeps_what_it_does_not_name() -> None:
    line = "pruning: {method: neuron, ratio: {low: 0.1, high: 0.9, step: 0.1}, layers: {a: {high: 0.5}, b: 0.2}}"
    method = parse_with(line).method("neuron")
    assert method.ratio_under(method.layers["a"]) == Range(low=0.1, high=0.5, step=0.1)
    assert method.ratio_under(method.layers["b"]) == 0.2


def test_load_spec_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("study: s\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.problems == (f"{path}:1: task is missing.",)


def test_load_spec_of_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file\. Shipped examples are in search_spaces/\."):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(ConfigError, match=r"a YAML file, got a folder\. Name the file in it\. In it: mine\.yaml\.$"):
        load_config(tmp_path)
    (tmp_path / "latin1.yaml").write_bytes("study: a\n# café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin1\.yaml:2: .* in UTF-8, got other bytes\. Save it as UTF-8"):
        load_config(tmp_path / "latin1.yaml")
