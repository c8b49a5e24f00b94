"""The flow as a layer of PyTorch: its gradients, and what PyTorch does with layers."""

import copy
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import learning_oracle
import numpy as np
import oracle
import pytest

from tiledlaf import InputError, Polynomials, Taylor, linearize, solve
from tiledlaf.flow import stencil

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

from tiledlaf import torch as module  # noqa: E402
from tiledlaf.torch import AssignmentFlowLayer, assignment_flow  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = {"tol": 1e-14, "rank_tol": 1e-16}
CORNERS = tuple(o for o in stencil.box(3, 3, 3) if all(o) or not any(o))
# 9 neighbors of two labels everywhere: each number of them is compiled
CASES = {
    "image": ((5, 4), "3x3"),
    "one-sided": ((4, 5), tuple((y - 1, x) for y, x in stencil.box(3, 3))),
    "volume": ((2, 3, 4), CORNERS),
    "planes of a volume": ((2, 3, 4), "3x3"),
}
EACH = pytest.mark.parametrize("name", CASES)


def problem(name="image", number=2, labels=2, dtype=torch.float64, wanted=True):
    """Random distances and logits of images."""
    grid, neighborhood = CASES[name]
    rng = np.random.default_rng(3)
    d, x = rng.random((number, labels, *grid)), rng.normal(size=(number, 9, *grid))
    tensors = [torch.tensor(a, dtype=dtype, requires_grad=wanted) for a in (2 * d, x)]
    return *tensors, neighborhood


def inside(grid, offsets):
    """Whether a neighbor is in the image, (K, *grid)."""
    return oracle.uniform_weights(offsets, grid) > 0


def weights_of(logits, offsets):
    """Their softmax over the neighbors inside the image, by NumPy."""
    e = np.where(inside(logits.shape[1:], offsets), np.exp(logits), 0)
    return e / e.sum(axis=0)


def gradients(flow, *inputs, g=None):
    """The flow's result and the gradients of its product with g, by default one that is random."""
    z = flow(*inputs)
    if g is None:
        g = torch.tensor(np.random.default_rng(9).normal(size=z.shape), dtype=z.dtype)
    return z.detach(), *torch.autograd.grad(z, [x for x in inputs if x.requires_grad], g)


def relative(found, expected):
    """Norm of the difference over the norm."""
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    assert np.linalg.norm(expected) > 0
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def same(found, expected):
    """Bit by bit, without a difference of the types."""
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.numpy(), other.numpy())


# Gradients


@EACH
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_gradcheck(name, wanted):
    distances, logits, neighborhood = problem(name)
    for tensor, one in zip((distances, logits), wanted, strict=True):
        tensor.requires_grad_(one)
    assert torch.autograd.gradcheck(
        lambda d, x: assignment_flow(d, x, neighborhood, rho=0.7, time=2.0, **EXACT),
        (distances, logits),
    )


@pytest.mark.parametrize("time", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("name", ["image", "one-sided"])
def test_automatic_differentiation_of_the_dense_exponential(name, time):
    from torch_learning import exact_flow_z

    distances, logits, neighborhood = problem(name, number=1)
    offsets = stencil.choose(neighborhood, 2)
    mask = torch.tensor(inside(distances.shape[2:], offsets))

    def dense(d, x):
        weights = torch.where(mask, x[0], -torch.inf).softmax(0)
        return exact_flow_z(weights, d[0], offsets, time, 0.7)[None]

    expected = gradients(dense, distances, logits)
    for options, tolerance in ((EXACT, 1e-13), ({}, 3e-4)):
        found = gradients(
            lambda d, x, options=options: assignment_flow(
                d, x, neighborhood, rho=0.7, time=time, **options
            ),
            distances,
            logits,
        )
        for one, other in zip(found, expected, strict=True):
            assert relative(one, other) < tolerance


@EACH
def test_the_dense_oracle_without_pytorch(name):
    distances, logits, neighborhood = problem(name)
    offsets = stencil.choose(neighborhood, distances.ndim - 2)
    g = torch.tensor(np.random.default_rng(1).normal(size=distances.shape))
    z, _, tangent = gradients(
        lambda d, x: assignment_flow(d, x, neighborhood, time=3.0, **EXACT), distances, logits, g=g
    )
    for n in range(len(z)):
        d, weights = distances[n].detach().numpy(), weights_of(logits[n].detach().numpy(), offsets)
        expected = learning_oracle.gradient(weights, d, offsets, g[n].numpy(), 3.0)
        assert relative(z[n], oracle.flow_z(weights, d, offsets, 3.0)) < 1e-12
        assert relative(tangent[n], expected["riemannian"]) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_what_numpy_gives(dtype):
    distances, logits, neighborhood = problem(dtype=dtype)
    offsets, rho = stencil.choose(neighborhood, 2), 0.7
    g = torch.tensor(np.random.default_rng(1).normal(size=distances.shape), dtype=dtype)
    found = gradients(lambda d, x: assignment_flow(d, x, rho=rho), distances, logits, g=g)
    for n, (z, of_distances, of_logits) in enumerate(zip(*found, strict=True)):
        d, x = (t[n].detach().numpy() for t in (distances, logits))
        given = weights_of(x, offsets).astype(d.dtype), d, offsets
        flow = linearize(*given, rho=rho, way=Polynomials())
        expected = flow.gradient(g[n].numpy(), inputs=True)
        tolerance = 3e-6 if dtype == torch.float32 else 1e-13
        assert relative(z, solve(*given, rho=rho, integrator=Taylor()).z) < tolerance
        assert relative(of_logits, expected.tangent) < tolerance
        assert relative(of_distances, -expected.potential / rho) < tolerance


def test_no_image_depends_on_its_batch():
    distances, logits, _ = problem(number=3, dtype=torch.float32)
    g = torch.randn(distances.shape)
    whole = gradients(assignment_flow, distances, logits, g=g)
    for n in range(3):
        one = [t[n : n + 1].detach().requires_grad_() for t in (distances, logits)]
        same([t[n : n + 1] for t in whole], gradients(assignment_flow, *one, g=g[n : n + 1]))


def test_uniform_weights():
    distances, logits, _ = problem()
    found = gradients(assignment_flow, distances)
    same(found, gradients(assignment_flow, distances, torch.zeros_like(logits)))
    offsets = stencil.box(3, 3)
    weights = oracle.uniform_weights(offsets, distances.shape[2:])
    z = solve(weights, distances[1].detach().numpy(), offsets).z
    assert relative(found[0][1], z) < 1e-14


def test_neighbors_outside_the_image():
    distances, logits, _ = problem()
    outside = ~inside(distances.shape[2:], stencil.box(3, 3))
    z, of_distances, of_logits = gradients(assignment_flow, distances, logits)
    assert outside.any()
    assert not of_logits[:, outside].any()
    assert of_logits[:, ~outside].all()
    # each pixel's are tangent, as both inputs count up to a constant of the pixel
    assert of_logits.sum(1).abs().max() < 1e-14
    assert of_distances.sum(1).abs().max() < 1e-14
    assert z.sum(1).abs().max() < 1e-14
    with torch.no_grad():
        logits[:, outside] = 7.0
    same([z], [assignment_flow(distances, logits).detach()])


def test_a_neighbor_that_is_left_out():
    distances, logits, _ = problem()
    with torch.no_grad():
        logits[:, :4] = -torch.inf
    found = gradients(assignment_flow, distances, logits)
    assert not found[2][:, :4].any()
    fewer = logits[:, 4:].detach().requires_grad_()
    # the kernel of 5 neighbors would be compiled for this alone
    expected = solve(
        weights_of(fewer[0].detach().numpy(), stencil.box(3, 3)[4:]),
        distances[0].detach().numpy(),
        stencil.box(3, 3)[4:],
        kernel="numpy",
    ).z
    assert relative(found[0][0], expected) < 1e-13


def test_there_is_no_second_derivative():
    distances, logits, _ = problem()
    z = assignment_flow(distances, logits)
    (first,) = torch.autograd.grad(z.square().sum(), logits, create_graph=True)
    with pytest.raises(InputError, match="expected first derivatives"):
        first.square().sum().backward()


# What PyTorch does with layers


@pytest.mark.parametrize("change", ["strided", "channels last", "part of a tensor"])
def test_memory_of_any_order(change):
    distances, logits, _ = problem(dtype=torch.float32, wanted=False)

    def moved(x):
        if change == "strided":
            return x.transpose(2, 3).contiguous().transpose(2, 3)
        if change == "channels last":
            return x.contiguous(memory_format=torch.channels_last)
        return torch.nn.functional.pad(x, (1, 2, 3, 1))[..., 3:-1, 1:-2]

    plain = [x.clone().requires_grad_() for x in (distances, logits)]
    other = [moved(x).requires_grad_() for x in (distances, logits)]
    assert not other[0].is_contiguous()
    g = torch.randn(distances.shape)
    same(
        gradients(assignment_flow, *other, g=moved(g)),
        gradients(assignment_flow, *plain, g=g),
    )
    # a sum's gradient is one number for all
    same(
        gradients(lambda d, x: assignment_flow(d, x)[:, :1].sum()[None], *other),
        gradients(lambda d, x: assignment_flow(d, x)[:, :1].sum()[None], *plain),
    )


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_narrow_types_are_computed_in_float32(narrow):
    distances, logits, _ = problem(dtype=narrow)
    z = assignment_flow(distances, logits)
    assert z.dtype == torch.float32
    same([z.detach()], [assignment_flow(distances.detach().float(), logits.detach().float())])
    z.square().sum().backward()
    assert distances.grad.dtype == logits.grad.dtype == narrow
    # the wider type of the two, whichever has it
    assert assignment_flow(distances, logits.double()).dtype == torch.float64
    assert assignment_flow((9 * distances).int()).dtype == torch.float32


def test_autocast():
    layer = torch.nn.Conv2d(1, 11, 3, padding=1)
    flow, images = AssignmentFlowLayer(), torch.rand(2, 1, 5, 8)
    seen = []
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(images)
        z = flow(out[:, :2], out[:, 2:])
        seen += [out.dtype, z.dtype]
        torch.nn.functional.cross_entropy(z, torch.zeros(2, 5, 8, dtype=torch.long)).backward()
    assert seen == [torch.bfloat16, torch.float32]
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.any()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic):
    torch._dynamo.reset()
    for output in ("tangent", "probabilities"):
        layer = AssignmentFlowLayer(time=2.0, output=output)
        compiled = torch.compile(layer, backend=backend, fullgraph=True, dynamic=dynamic)
        for number in (2, 3):
            distances, logits, _ = problem(number=number, dtype=torch.float32)
            same(gradients(compiled, distances, logits), gradients(layer, distances, logits))
            same(gradients(compiled, distances), gradients(layer, distances))
    plain = torch.compile(assignment_flow, backend=backend, fullgraph=True, dynamic=dynamic)
    same(gradients(plain, distances, logits), gradients(assignment_flow, distances, logits))
    with pytest.raises(InputError, match="expected finite"):
        compiled(distances * torch.nan, logits)


@pytest.mark.parametrize("both", [False, True])
def test_operators_keep_their_promises(both):
    distances, logits, _ = problem(dtype=torch.float32, wanted=False)
    distances = distances.contiguous(memory_format=torch.channels_last).requires_grad_()
    logits.requires_grad_()
    flat = [number for offset in stencil.fit(stencil.box(3, 3), 3) for number in offset]
    numbers = (flat, 0.7, 2.0, 1e-4, 5e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # opcheck reads the .grad of what is no leaf
        torch.library.opcheck(module._flow, (distances, logits, *numbers))
        given = [t.detach() for t in (distances, distances, logits)]
        torch.library.opcheck(module._adjoint, (*given, *numbers, both))


@pytest.mark.parametrize("time", [1.0, 20.0])
def test_the_graph_keeps_the_inputs_alone(time):
    distances, logits, _ = problem(dtype=torch.float32)
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    for given in ((distances, logits), (distances,)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            z = assignment_flow(*given, time=time, tol=1e-6)
        for tensor, one in zip(given, kept, strict=False):
            assert tensor.data_ptr() == one.data_ptr()
        # equal weights are one number
        stored = sum(t.untyped_storage().nbytes() for t in kept)
        assert stored == sum(t.untyped_storage().nbytes() for t in given) + 4 * (len(given) == 1)
    assert z.grad_fn is not None


def test_arrays_are_the_memory_of_tensors(monkeypatch):
    distances, logits, _ = problem(dtype=torch.float32)
    seen = {"solve": [], "linearize": []}
    for name, function in (("solve", solve), ("linearize", linearize)):

        def spy(weights, d, *rest, function=function, places=seen[name], **options):
            places.append(d.ctypes.data)
            return function(weights, d, *rest, **options)

        monkeypatch.setattr(module, name, spy)
    assignment_flow(distances, logits).sum().backward()
    places = [image.data_ptr() for image in distances]
    assert seen == {"solve": places, "linearize": places}


@pytest.mark.parametrize("wanted", [True, False])
def test_what_nobody_wants_is_not_computed(monkeypatch, wanted):
    distances, logits, _ = problem(dtype=torch.float32)
    distances.requires_grad_(wanted)
    asked = []
    plain = module.linearize

    def spy(*given, **options):
        flow = plain(*given, **options)

        class Seen:
            def gradient(self, g, inputs):
                asked.append(inputs)
                return flow.gradient(g, inputs)

        return Seen()

    monkeypatch.setattr(module, "linearize", spy)
    assignment_flow(distances, logits).sum().backward()
    assert asked == [wanted] * 2
    assert (distances.grad is not None) == wanted


# The layer


def test_layer():
    distances, logits, neighborhood = problem("volume", dtype=torch.float32)
    layer = AssignmentFlowLayer(CORNERS, rho=0.7, time=2, tol=1e-3, rank_tol=1e-3)
    assert layer.neighbors == 9
    options = {"rho": 0.7, "time": 2.0, "tol": 1e-3, "rank_tol": 1e-3}
    expected = assignment_flow(distances, logits, neighborhood, **options).detach()
    for one in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same([one(distances, logits).detach()], [expected])
    assert not layer.state_dict()
    layer = AssignmentFlowLayer("3x3", rho=0.7, output="probabilities")
    assert repr(layer) == (
        "AssignmentFlowLayer(neighborhood='3x3', rho=0.7, time=5.0, tol=0.0001, rank_tol=0.0005, "
        "output='probabilities')"
    )
    z = assignment_flow(distances, logits, "3x3", rho=0.7)
    same([layer(distances, logits).detach()], [z.softmax(1).detach()])


def test_the_page_trains():
    page = (Path(__file__).parents[1] / "docs/torch.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    told = {}
    with torch.random.fork_rng():
        exec(code, told)
    assert told["losses"][-1] < told["losses"][0] / 4
    assert told["wrong"] < 0.01


# What is refused


def wrong(text, *given, **options):
    """A case of a call that is refused with a text."""
    return pytest.param(text, given, options, id=text[:40])


D, X = torch.zeros(1, 2, 5, 4), torch.zeros(1, 9, 5, 4)
OVERFULL = "distances must have shape (N, J, y, x) or (N, J, z, y, x) with two labels or more, got "


@pytest.mark.parametrize(
    ("text", "given", "options"),
    [
        wrong(f"{OVERFULL}(2, 5, 4)", D[0], X),
        wrong(f"{OVERFULL}(1, 1, 5, 4)", D[:, :1], X),
        wrong(f"{OVERFULL}(0, 2, 5, 4)", D[:0], X[:0]),
        wrong("logits must have shape (1, 9, 5, 4), got (1, 8, 5, 4)", D, X[:, :8]),
        wrong("logits must have shape (1, 9, 5, 4), got (1, 9, 5, 3)", D, X[..., :3]),
        wrong("logits must have shape (1, 25, 5, 4), got (1, 9, 5, 4)", D, X, "rings:2,3"),
        wrong("expected distances as a tensor, got ndarray", D.numpy()),
        wrong("expected logits as a tensor, got list", D, [1]),
        wrong("expected distances of real numbers on the CPU", D.to(torch.complex64), X),
        wrong("expected distances and logits on one device, got cpu and meta", D, X.to("meta")),
        wrong("neighborhood must be like 3x3", D, X, "many"),
        wrong("a 3-D neighborhood does not fit images", D, torch.zeros(1, 27, 5, 4), "3x3x3"),
        wrong("expected finite weights and distances", D * torch.nan, X),
        wrong("expected finite weights and distances", D, X - torch.inf),
        wrong("expected a number for `rho`, got 'x'", D, X, rho="x"),
        wrong("rho must be a positive number, got 0", D, X, rho=0),
        wrong("time must be a positive number, got -1", D, X, time=-1),
        wrong("tol must be a positive number, got 0", D, X, tol=0),
        wrong("time 100 is too long for float32", D, X, time=100),
    ],
)
def test_what_does_not_fit_is_refused(text, given, options):
    with pytest.raises(InputError, match=re.escape(text)) as caught:
        assignment_flow(*given, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "given", "options"),
    [
        wrong("neighborhood must be like 3x3", "many"),
        wrong("rho must be a positive number, got 0", rho=0),
        wrong("time must be at most 1000, got 1001", time=1001),
        wrong("tol must be a positive number, got 0", tol=0),
        wrong("expected a number for `rank_tol`", rank_tol="x"),
        wrong("output must be tangent or probabilities, got 'labels'", output="labels"),
    ],
)
def test_layers_that_are_refused(text, given, options):
    with pytest.raises(InputError, match=re.escape(text)):
        AssignmentFlowLayer(*given, **options)


def test_without_pytorch():
    code = "import sys; sys.modules['torch'] = None; import tiledlaf.torch"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = "ImportError: tiledlaf.torch needs PyTorch: pip install 'tiledlaf[torch]'"
    assert found.stderr.splitlines()[-1] == said


@pytest.mark.gpu
@EACH
def test_on_a_gpu(name):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not (torch.cuda.is_available() and cupy.cuda.is_available()):
        pytest.skip("no CUDA device")
    distances, logits, neighborhood = problem(name)
    expected = gradients(lambda d, x: assignment_flow(d, x, neighborhood), distances, logits)
    moved = [t.detach().cuda().requires_grad_() for t in (distances, logits)]
    g = torch.tensor(np.random.default_rng(9).normal(size=distances.shape), device="cuda")
    # a stream of its own: what is computed waits for the inputs, and PyTorch for the result
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = gradients(lambda d, x: assignment_flow(d, x, neighborhood), *moved, g=g)
            for one, other in zip(found, expected, strict=True):
                assert one.device == moved[0].device
                assert relative(one.cpu(), other) < 1e-12
