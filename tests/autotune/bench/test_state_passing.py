"""The backward passes of states that go from chunk to chunk, against autograd through a loop."""

import pytest
import torch

from mixc.autotune.bench.state_passing import pass_corrected, pass_states

X, N, C, K, V = 2, 3, 4, 5, 6


def loop(added, whole, start, read=None, values=None, key=None):
    states, found, state = [], [], start
    for n in range(N):
        states.append(state)
        own = 0.0 if added is None else added[:, n]
        if read is not None:
            found.append(values[:, n] + read[:, n] @ state)
            own = own + key[:, n] @ found[-1]
        state = (state if whole is None else whole[:, n] * state) + own
    results = torch.stack(states, 1), state
    return results if read is None else (results[0], torch.stack(found, 1), state)


def leaf(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("decay", [None, (K, 1), (1, 1)])
@pytest.mark.parametrize("has_added", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
def test_gradients(decay, has_added, corrected):
    if not (corrected or has_added):
        return
    torch.manual_seed(0)
    added = leaf(X, N, K, V) if has_added else None
    whole = None if decay is None else leaf(X, N, *decay)
    start = leaf(X, K, V)
    more = (leaf(X, N, C, K), leaf(X, N, C, V), leaf(X, N, K, C)) if corrected else ()
    if corrected:
        made = pass_corrected(added, *more, whole, start)
    else:
        made = pass_states(added, whole, start)
    wanted = loop(added, whole, start, *more)
    leaves = [t for t in (added, whole, start, *more) if t is not None]
    above = [torch.randn_like(t) for t in wanted]
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other)
    found = torch.autograd.grad(made, leaves, above)
    for one, other in zip(found, torch.autograd.grad(wanted, leaves, above), strict=True):
        torch.testing.assert_close(one, other)
