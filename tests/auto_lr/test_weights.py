"""What weights tell: whether they were trained before, and how much an update has changed them."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aios.auto_lr.loop.weights import FEW, ChangeMeter, looks_trained, trainable
from auto_lr.problems import adamw, classifier, train_plainly


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 128, "n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    return BertModel(BertConfig(vocab_size=128, **sizes))


def drawn(draw: Callable[[Tensor], object], rows: int = 64, columns: int = 96) -> nn.Module:
    """A layer whose weights `draw` has drawn."""
    layer = nn.Linear(columns, rows)
    draw(layer.weight)
    return layer


KINDS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: classifier()[0],
    "conv": lambda: nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 64, 3), nn.Linear(64, 10)),
    "conv1d": lambda: nn.Conv1d(16, 32, 5),
    "gru": lambda: nn.GRU(32, 64, 2),
    "lstm": lambda: nn.LSTM(32, 64),
    "embedding": lambda: nn.Sequential(nn.Embedding(1000, 64), nn.Linear(64, 1000)),
    "transformer": lambda: nn.TransformerEncoderLayer(64, 4, 128),
    "gpt2": gpt2,
    "bert": bert,
    "orthogonal": lambda: drawn(nn.init.orthogonal_),
    "xavier": lambda: drawn(nn.init.xavier_uniform_),
    "kaiming": lambda: drawn(nn.init.kaiming_normal_),
    "truncated": lambda: drawn(lambda w: nn.init.trunc_normal_(w, std=0.02)),
    "long": lambda: drawn(nn.init.normal_, rows=8, columns=2000),
    "zeros": lambda: drawn(nn.init.zeros_),
    "too small to tell": lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_fresh_weights_do_not_look_trained(kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    assert not looks_trained(KINDS[kind]().parameters())


@given(st.integers(8, 80), st.integers(8, 80), st.floats(-3, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_random_matrices_of_any_shape_and_size_do_not_look_trained(
    rows: int, columns: int, size: float, seed: int
) -> None:
    drawn_now = 10**size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    assert not looks_trained([drawn_now])


def test_no_weights_at_all_do_not_look_trained() -> None:
    assert not looks_trained([])
    assert not looks_trained([torch.zeros(3), torch.zeros(0, 16)])


def language_model() -> tuple[nn.Module, Callable[[int], Tensor]]:
    """Predicts the next of two that count up."""
    torch.manual_seed(0)
    model = gpt2()

    def forward(batch: int) -> Tensor:
        first = torch.randint(0, 96, (8, 1), generator=torch.Generator().manual_seed(batch))
        ids = (first + torch.arange(24)) % 96
        return model(input_ids=ids, labels=ids).loss

    return model, forward


def picture_classifier() -> tuple[nn.Module, Callable[[int], Tensor]]:
    """Tells stripes of eight widths apart."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(288, 8)
    )

    def forward(batch: int) -> Tensor:
        numbers = torch.Generator().manual_seed(batch)
        labels = torch.randint(0, 8, (32,), generator=numbers)
        stripes = torch.sin(torch.arange(16) * (labels[:, None] + 1) * 0.3)[:, None, None, :].expand(-1, 1, 16, -1)
        return nn.functional.cross_entropy(model(stripes + 0.1 * torch.randn(32, 1, 16, 16, generator=numbers)), labels)

    return model, forward


TRAINED = {"mlp": (classifier, 1e-2), "gpt2": (language_model, 1e-2), "conv": (picture_classifier, 1e-2)}
"""How to build it, and a rate at which it learns."""


@pytest.mark.parametrize("kind", TRAINED)
def test_some_dozens_of_training_steps_show(kind: str) -> None:
    make, lr = TRAINED[kind]
    model, forward = make()
    assert not looks_trained(model.parameters())
    losses = train_plainly(adamw(model, lr), forward, 60)
    assert losses[-1] < 0.8 * losses[0]
    assert looks_trained(model.parameters())


def test_a_fresh_head_on_a_trained_model_does_not_hide_that_it_was_trained() -> None:
    model, forward = language_model()
    train_plainly(adamw(model, 1e-2), forward, 60)
    assert looks_trained([*model.parameters(), *nn.Linear(64, 3).parameters()])


def test_asking_draws_no_number_of_the_training_and_changes_nothing() -> None:
    model, _ = classifier()
    before, numbers = [p.tolist() for p in model.parameters()], torch.get_rng_state()
    assert looks_trained(model.parameters()) == looks_trained(model.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert [p.tolist() for p in model.parameters()] == before


# --- what an update changes ---

CPU, META = torch.device("cpu"), torch.device("meta")


def slowly(before: list[Tensor], after: list[Tensor]) -> float:
    """The change as it is defined, weight by weight."""

    def rms(tensor: Tensor) -> float:
        return float(tensor.double().square().mean().sqrt())

    pairs = [(a.float(), b.float()) for a, b in zip(before, after, strict=True) if a.numel()]
    sizes = [rms(a) for a, _ in pairs]
    others = [size for size in sizes if size > 0]
    if not any(size > 0 and a.ndim >= 2 for size, (a, _) in zip(sizes, pairs, strict=True)):
        layer = [(3 * (a[0].numel() if a.ndim >= 2 else a.numel())) ** -0.5 for a, _ in pairs]
        sizes = [
            size or (statistics.median_low(others) if others else of) for size, of in zip(sizes, layer, strict=True)
        ]
    if pairs and sum(a.numel() for a, _ in pairs) < FEW:  # as one vector, each weight as large as it counts
        whole = sum(a.numel() * size**2 for size, (a, _) in zip(sizes, pairs, strict=True)) ** 0.5
        return float(torch.cat([(b - a).double().flatten() for a, b in pairs]).norm()) / whole
    told = [(a.ndim >= 2, rms(b - a) / size) for size, (a, b) in zip(sizes, pairs, strict=True) if size > 0]
    matrices = [ratio for is_matrix, ratio in told if is_matrix] or [ratio for _, ratio in told]
    return statistics.median_low(matrices) if matrices else 0.0


shapes = st.lists(
    st.sampled_from([(3,), (1,), (), (4, 5), (8, 2), (2, 3, 4), (0, 3), (64, 32)]), min_size=1, max_size=7
)


@given(shapes, st.integers(0, 10**6), st.floats(-4, 1), st.sets(st.integers(0, 6)))
@settings(deadline=None)
def test_the_change_is_that_of_a_plain_computation(
    sizes: list[tuple[int, ...]], seed: int, exponent: float, zeros: set[int]
) -> None:
    numbers = torch.Generator().manual_seed(seed)
    weights = [torch.randn(size, generator=numbers) * (i not in zeros) for i, size in enumerate(sizes)]
    meter, before = ChangeMeter(weights, CPU), [w.clone() for w in weights]
    meter.mark()
    for weight in weights:
        weight.add_(10**exponent * torch.randn(weight.shape, generator=numbers))
    assert float(meter.measure()) == pytest.approx(slowly(before, weights), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_any_number_type_can_be_measured(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weights = [torch.randn(32, 32).to(dtype) for _ in range(3)]
    meter, before = ChangeMeter(weights, CPU), [w.clone() for w in weights]
    meter.mark()
    for weight in weights:
        weight.mul_(1.25)
    assert float(meter.measure()) == pytest.approx(slowly(before, weights), rel=1e-2)
    assert float(meter.measure()) == pytest.approx(0.25, rel=2e-2)


def test_without_an_update_nothing_changed() -> None:
    model, _ = classifier()
    meter = ChangeMeter(model.parameters(), CPU)
    assert float(meter.measure()) == 0.0
    meter.mark()
    assert float(meter.measure()) == 0.0
    assert float(ChangeMeter([], CPU).measure()) == 0.0


def test_it_is_measured_from_the_last_mark_on() -> None:
    weight = torch.ones(4, 4)
    meter = ChangeMeter([weight], CPU)
    meter.mark()
    weight.mul_(2.0)
    meter.mark()
    weight.mul_(1.5)
    assert float(meter.measure()) == pytest.approx(0.5)


def test_a_large_embedding_does_not_outweigh_the_rest() -> None:
    embedding, *layers = weights = [torch.randn(1000, 8), 0.01 * torch.randn(8, 8), 0.01 * torch.randn(8, 8)]
    meter = ChangeMeter(weights, CPU)
    meter.mark()
    embedding.add_(1e-6)
    for layer in layers:
        layer.mul_(1.1)
    assert float(meter.measure()) == pytest.approx(0.1, rel=1e-3)


def test_only_what_learns_counts() -> None:
    model, _ = classifier()
    model[0].requires_grad_(False)  # type: ignore[index]
    assert [p.shape for p in trainable(model.parameters())] == [(10, 64), (10,)]


@pytest.mark.parametrize("places", [(CPU, META), (META, CPU), (META, META)], ids=str)
def test_weights_on_several_devices_are_measured_where_the_numbers_are(places: tuple[torch.device, ...]) -> None:
    weights = [torch.ones(8, 8, device=place) for place in places]
    meter = ChangeMeter(weights, META)
    meter.mark()
    for weight in weights:
        weight.mul_(1.5)
    measured = meter.measure()
    assert (measured.device, measured.shape) == (META, ())


def test_a_worker_without_any_weights_answers_on_the_device_too() -> None:
    meter = ChangeMeter([], META)
    assert meter.measure().device == META
    meter.mark()
    assert meter.measure().device == META
