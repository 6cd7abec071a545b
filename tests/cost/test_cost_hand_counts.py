"""Counts worked out by hand, for one example; and the table foretells those of networks that are really pruned."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import library as operators
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import autoprune
from autoprune.cost import build_table, count_macs


class Applied(nn.Module):
    """A function as a network; its parameters are handed to it behind the inputs."""

    def __init__(self, function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs, *self.weights)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value)


def attend_by_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(query, key, value)


def attend_in_groups(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value, enable_gqa=True)


def sparse(n_rows: int, n_columns: int, n_entries: int) -> torch.Tensor:
    """A sparse matrix with so many entries in its first places."""
    places = torch.arange(n_entries)
    where = torch.stack([places // n_columns, places % n_columns])
    return torch.sparse_coo_tensor(where, torch.ones(n_entries), (n_rows, n_columns), check_invariants=True)


def weighted_rows(weights: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    indices = torch.zeros(weights.shape, dtype=torch.long)
    return F.embedding_bag(indices, table, per_sample_weights=weights, mode="sum")


SHAPES = [(2, 3, 4), (5, 2, 7), (3, 8, 6)]


def each(*cases: Callable[..., Any]) -> list[Any]:
    return [pytest.param(case, shape, id=f"{case.__name__[1:]}-{shape}") for case in cases for shape in SHAPES]


def _bilinear(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """An example's features a x b in pairs, each with a weight for c outputs."""
    return nn.Bilinear(a, b, c), (torch.randn(2, a), torch.randn(2, b)), a * b * c


def _matrix_times_vector(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """An example of a x b rows, each of c entries multiplied with a vector's."""
    return Applied(torch.matmul, (c,)), torch.randn(2, a, b, c), a * b * c


def _added_vector(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    return (
        Applied(lambda x, bias, w: torch.addmv(bias, w, x.flatten()), (a,), (a, b * c)),
        torch.randn(2, b, c),
        a * b * c,
    )


def _dot(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    return Applied(lambda x, w: x.flatten() @ w, (a * b * c,)), torch.randn(2, a, b, c), a * b * c


def _distances(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """The example's a points to b others, in c dimensions."""
    return Applied(torch.cdist, (b, c)), torch.randn(2, a, c), a * b * c


def _many_distances(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """So many that torch turns them into a matrix product."""
    return Applied(torch.cdist, (30 * b, c)), torch.randn(2, 40 * a, c), 40 * a * 30 * b * c


def _attention(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """In b heads of c features, each of 5 queries meets each of a keys, and then each of a values."""
    keys = torch.randn(2, b, a, c)
    return Applied(attend), (torch.randn(2, b, 5, c), keys, keys), b * (5 * a * c + 5 * a * c)


def _attention_by_products(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """The same, but a value has 9 features."""
    inputs = torch.randn(2, b, 5, c), torch.randn(2, b, a, c), torch.randn(2, b, a, 9)
    return Applied(attend_by_products), inputs, b * (5 * a * c + 5 * a * 9)


def _attention_in_groups(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Three query heads share each of b key heads: all 3 x b count."""
    keys = torch.randn(2, b, a, c)
    return Applied(attend_in_groups), (torch.randn(2, 3 * b, 5, c), keys, keys), 3 * b * (5 * a * c + 5 * a * c)


def _multihead_attention(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Four projections of a tokens; all heads together multiply each pair of tokens in every feature, twice."""
    width = b * c
    model = nn.TransformerEncoderLayer(width, b, 10, batch_first=True)
    macs = a * 4 * width**2 + 2 * a * a * width + a * 2 * width * 10
    return model, torch.randn(2, a, width), macs


def _einsum(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    return Applied(lambda x, w: torch.einsum("nab,abc->nac", x, w), (a, b, c)), torch.randn(2, a, b), a * b * c


def _transposed(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Each of a x c pixels of 2 channels is multiplied with 3 x 3 weights for b channels, wherever they land."""
    return nn.ConvTranspose2d(2, b, 3, stride=2, output_padding=1), torch.randn(2, 2, a, c), a * c * 2 * b * 9


def _transposed_in_groups(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Half of the 4 channels reach half of the 2 b channels."""
    return nn.ConvTranspose1d(4, 2 * b, 3, groups=2), torch.randn(2, 4, a + c), (a + c) * 4 * b * 3


def _grouped_and_dilated(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """A kernel of 3 spans 5: (a + 4) x (c + 4) pixels give a x c; each of 2 b channels reads 3 of 6."""
    return nn.Conv2d(6, 2 * b, 3, groups=2, dilation=2), torch.randn(2, 6, a + 4, c + 4), a * c * 2 * b * 3 * 9


def _upsampled(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Interpolation is not counted; the convolution sees twice as many pixels along each side."""
    model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, b, 3, padding=1))
    return model, torch.randn(2, 3, a, c), 4 * a * c * 3 * b * 9


def _time_first(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Steps lie first: the one example is the first step, which padding makes 3, of which a kernel of 3 leaves 1."""
    return (
        Applied(lambda x, w, bias: torch.conv_tbc(x, w, bias, 1), (3, a, b), (b,)),
        torch.randn(2, c, a),
        c * 3 * a * b,
    )


def _cells(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """A step of an LSTM: four gates of b features, from a inputs and b states."""
    return nn.LSTMCell(a, b), torch.randn(c, a), 4 * b * (a + b)


def _projected(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Two layers over c steps: b + 1 features, projected to b; the second reads b."""
    width = b + 1
    macs = c * (4 * width * (a + b) + width * b + 4 * width * (b + b) + width * b)
    return nn.LSTM(a, width, 2, proj_size=b, batch_first=True), torch.randn(2, c, a), macs


def _gated_both_ways(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    return nn.GRU(a, b, bidirectional=True, batch_first=True), torch.randn(2, c, a), c * 2 * 3 * b * (a + b)


def _added_products(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    model = Applied(lambda x, w, bias: torch.baddbmm(bias, x, w.expand(len(x), -1, -1)), (b, c), (a, c))
    return model, torch.randn(2, a, b), a * b * c


def _summed_products(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """The example is a matrix of a x b; its product with another is added to a third."""
    model = Applied(lambda x, w, bias: torch.addbmm(bias, x, w.expand(len(x), -1, -1)), (b, c), (a, c))
    return model, torch.randn(2, a, b), a * b * c


def _outer(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Each of b x c places gets a product added; alone, an outer product is entry by entry, and is not counted."""
    return Applied(lambda x, w, m: torch.addr(m, x.flatten(), w), (c,), (a * b, c)), torch.randn(2, a, b), a * b * c


def _bags(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Rows of c entries, a of them, each with a weight."""
    return Applied(weighted_rows, (b, c)), torch.randn(2, a), a * c


def _sparse_matrix(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Of a sparse matrix, only its entries are multiplied, each with c numbers."""
    edges = sparse(a + 2, b, 2)
    return Applied(lambda x: torch.sparse.mm(edges, x[0]) + edges @ x[0]), torch.randn(2, b, c), 2 * 2 * c


def experts(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    rows = rows.flatten(0, 1)
    return F.grouped_mm(rows, weights, offs=torch.tensor([1, len(rows)], dtype=torch.int32))


def _experts(a: int, b: int, c: int) -> tuple[nn.Module, Any, int]:
    """Each of a rows meets the matrix of one of two experts."""
    return Applied(experts, (2, 4 * b, 4 * c)), torch.randn(2, a, 4 * b), a * 4 * b * 4 * c


@pytest.mark.parametrize(
    ("case", "shape"),
    [
        *each(_bilinear, _matrix_times_vector, _added_vector, _dot, _distances, _many_distances),
        *each(_attention, _attention_by_products, _attention_in_groups, _multihead_attention, _einsum),
        *each(_transposed, _transposed_in_groups, _grouped_and_dilated, _upsampled, _time_first),
        *each(_cells, _projected, _gated_both_ways, _added_products, _summed_products, _outer, _bags),
        *each(_sparse_matrix, _experts),
    ],
)
def test_hand_counts(case: Callable[..., tuple[nn.Module, Any, int]], shape: tuple[int, int, int]) -> None:
    model, inputs, macs = case(*shape)
    assert count_macs(model, inputs) == macs
    table = build_table(model, inputs, widths={}, shrink={})
    assert (table.cost({}).macs, table.uncounted) == (macs, ())


def test_what_is_not_counted_is_named() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft(x).abs() + torch.fft.rfft(x).abs()

    class Whitened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spectrum, self.mix = Spectrum(), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.mix(torch.linalg.inv(x) @ self.spectrum(x).new_ones(3, 3)))

    plan = autoprune.plan(Whitened(), torch.eye(3).expand(2, 3, 3))
    assert plan.uncounted == (("linalg_inv_ex", ""), ("_fft_r2c", "spectrum"))
    assert plan.cost({}).macs == 3 * 3 * 3 + 3 * 3 * 4


class Light(nn.Module):
    """Interpolation, pooling, norms, sorting, gathering: work for each entry, of which none is named."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear") + F.interpolate(x, scale_factor=2, mode="bicubic")
        x = F.max_pool2d(F.pad(F.group_norm(x, 1), (1, 1, 1, 1), mode="reflect"), 2) + F.adaptive_avg_pool2d(x, 5)
        x = (
            F.grid_sample(x, torch.zeros(len(x), 5, 5, 2), align_corners=False)
            + F.pixel_shuffle(x.repeat(1, 4, 1, 1), 1)[:, :2]
        )
        x = x.softmax(-1).cumsum(-1).sort(-1).values.roll(1, -1) * x.norm(dim=-1, keepdim=True) + x.square().logsumexp(
            1, True
        )
        return torch.cross(x[..., :3], x[..., 1:4], -1).unfold(-1, 2, 1).amax(-1)


def test_what_works_entry_by_entry_is_neither_counted_nor_named() -> None:
    table = build_table(Light(), torch.randn(2, 2, 4, 4), widths={}, shrink={})
    assert (table.cost({}).macs, table.uncounted) == (0, ())


def test_an_operation_of_ones_own_is_named() -> None:
    own = operators.Library("autoprune_tests", "DEF")
    own.define("scan(Tensor x) -> Tensor")
    own.impl("scan", lambda x: x.cumsum(0), "CompositeExplicitAutograd")
    model = nn.Sequential(nn.Linear(3, 4), Applied(torch.ops.autoprune_tests.scan))
    table = build_table(model, torch.randn(2, 3), widths={}, shrink={})
    assert (table.cost({}).macs, table.uncounted) == (12, (("autoprune_tests.scan", "1"),))


class Scored(nn.Module):
    """Hidden features meet a vector, another network's features, weighted rows, and each other."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 10), nn.Linear(6, 14)
        self.score, self.both = nn.Parameter(torch.randn(10)), nn.Bilinear(10, 14, 5)
        self.rows, self.read = nn.Parameter(torch.randn(4, 12)), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> Any:
        left, right = F.relu(self.left(x)), F.relu(self.right(x))
        return left @ self.score, self.both(left, right), self.read(weighted_rows(x[:, :2], self.rows))


class Drawn(nn.Module):
    """Pixels from a transposed and a grouped convolution, weighted by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 8, 3, stride=2, output_padding=1)
        self.groups = nn.Conv2d(8, 8, 3, groups=2, dilation=2)
        self.mix, self.head = nn.Parameter(torch.randn(8, 6)), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.groups(F.relu(self.up(x))))
        return torch.as_tensor(self.head(torch.einsum("nchw,cd->ndhw", x, self.mix).relu()))


class Shared(nn.Module):
    """Four query heads over two key heads, fused."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(6, n * 4) for n in (4, 2, 2))
        self.n_heads, self.n_keys, self.out = 4, 2, nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in self.heads)
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return torch.as_tensor(self.out(y.transpose(1, 2).flatten(2)))


class States(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(6, 10, 2, batch_first=True), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.cells(x)[0][:, -1]))


class Mixer(nn.Module):
    """One product along tokens, for every channel, and one along channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.tokens, self.back = nn.Linear(5, 10), nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.embed(x))
        x = x + self.back(F.relu(self.tokens(x.transpose(1, 2)))).transpose(1, 2)
        return torch.as_tensor(self.head(x.mean(1)))


class Neighbours(nn.Module):
    """A matrix of constants is multiplied with every channel, and with itself."""

    def __init__(self, matrix: torch.Tensor, *, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix, persistent=persistent)
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrix = self.get_buffer("matrix")
        if matrix.layout != torch.strided:
            return torch.as_tensor(self.head(torch.stack([torch.sparse.mm(matrix, F.relu(self.first(r))) for r in x])))
        twice = matrix @ (matrix / matrix.sum(1, keepdim=True))
        return torch.as_tensor(self.head(twice @ F.relu(self.first(x)) + x.new_zeros(1)))


class Kernels(nn.Module):
    """Computes a kernel: for each example and channel apart, or for all channels, there and back."""

    def __init__(self, *, apart: bool) -> None:
        super().__init__()
        self.first, self.head, self.apart = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 3, 1), apart
        self.kernel = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, height, width = x.shape
        x = F.relu(self.first(x))
        kernel = self.kernel(x.mean((2, 3))).view(n, 1, 2, 2)
        if not self.apart:
            kernel = kernel[:1] * x.mean((0, 2, 3))[None, :, None, None]
            return torch.as_tensor(self.head(F.conv_transpose2d(F.conv2d(x, kernel), kernel)))
        n_kernels = n * x.shape[1]
        kernel = kernel.expand(-1, x.shape[1], -1, -1).reshape(n_kernels, 1, 2, 2)
        x = F.conv2d(x.reshape(1, -1, height, width), kernel, groups=n_kernels)
        return torch.as_tensor(self.head(x.view(n, -1, height - 1, width - 1)))


class Near(nn.Module):
    """Points meet each other as they come and as features; features are compared with prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.prototypes = nn.Linear(6, 8), nn.Linear(8, 10), nn.Parameter(torch.randn(5, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.first(x))
        near = (x @ x.transpose(1, 2)).softmax(-1) @ features + torch.cdist(features, features) @ features
        return torch.as_tensor(torch.cdist(F.relu(self.last(near))[:, 0], self.prototypes))


class Looked(nn.Module):
    """Sums of rows and the largest of rows, looked up by number."""

    def __init__(self) -> None:
        super().__init__()
        self.sums, self.largest = nn.EmbeddingBag(7, 8, mode="sum"), nn.EmbeddingBag(7, 8, mode="max")
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.sums(x) * self.largest(x)))


class Joined(nn.Module):
    """A weight that is made of several, so that its products are no parameter's."""

    def __init__(self, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.join = nn.Linear(6, 8), join
        self.left, self.right = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(4, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.relu(self.first(x)), self.join(self.left, self.right))


class Adapted(nn.Module):
    """A weight and a product of two narrow ones, added before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(8, 6)), nn.Linear(8, 3)
        self.left, self.right = nn.Parameter(torch.randn(8, 2)), nn.Parameter(torch.randn(2, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(F.relu(F.linear(x, self.weight + self.left @ self.right))))


@pytest.mark.parametrize("ratio", [0.5, 0.75])
@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (Scored, torch.randn(2, 6)),
        (Drawn, torch.randn(2, 2, 4, 4)),
        (Shared, torch.randn(2, 5, 6)),
        (States, torch.randn(2, 5, 6)),
        (Mixer, torch.randn(2, 5, 6)),
        (lambda: Neighbours(torch.rand(5, 5)), torch.randn(2, 5, 6)),
        (lambda: Neighbours(torch.rand(5, 5), persistent=False), torch.randn(2, 5, 6)),
        (lambda: Neighbours(sparse(5, 5, 7).coalesce()), torch.randn(2, 5, 6)),
        (Adapted, torch.randn(2, 6)),
        (Near, torch.randn(2, 5, 6)),
        (Looked, torch.randint(0, 7, (2, 4))),
        (lambda: Joined(lambda a, b: torch.cat([a, b])), torch.randn(2, 6)),
        (lambda: Joined(lambda a, b: torch.stack([a, b]).sum(0)), torch.randn(2, 6)),
        (lambda: Joined(lambda a, b: (a * b)[[0, 2]]), torch.randn(2, 6)),
        (lambda: Joined(lambda a, b: (a @ b.T) @ b), torch.randn(2, 6)),
        (lambda: Kernels(apart=True), torch.randn(2, 2, 5, 5)),
        (lambda: Kernels(apart=False), torch.randn(2, 2, 5, 5)),
    ],
)
def test_the_table_foretells_the_count_of_the_pruned_network(
    build: Callable[[], nn.Module], inputs: torch.Tensor, ratio: float
) -> None:
    torch.manual_seed(0)
    plan = autoprune.plan(build(), inputs)
    assert plan.groups
    pruned, widths = plan.prune(ratio), plan.widths(ratio)
    assert plan.cost(widths).macs == count_macs(pruned, inputs) < plan.cost({}).macs
    assert plan.cost(widths).params == sum(parameter.numel() for parameter in pruned.parameters())
