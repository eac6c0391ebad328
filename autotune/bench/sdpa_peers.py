"""torch's scaled_dot_product_attention, called once: as it is, or a group's heads as rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ...ir.errors import UnsupportedError
from .dot_product import dot_product
from .peers import Call, Operands, Setting

# With more queries than these a group's heads as rows save nothing: keys are read often anyway.
_FEW_QUERIES = 16


class Linear(Operands):
    """Operands of a score that is ``factor`` times the product, plus ``bias``."""

    def __init__(self, setting: Setting) -> None:
        """A sink gets a key and a value of zeros, behind the others."""
        form = dot_product(setting.mixer, setting.sizes, setting.params)
        linear = form.factor_and_bias
        if linear is None:
            raise UnsupportedError("its score is not linear in the product")
        super().__init__(setting, form)
        self.factor, self.bias = linear
        self.square = self.query.shape[2] == self.key.shape[2]
        if form.sink is not None:
            self.key, self.value = (functional.pad(t, (0, 0, 0, 1)) for t in (self.key, self.value))

    def additive(self) -> Tensor | None:
        """The mask as SDPA takes it, made before the call; a sink's logit is that of its key."""
        form, bias = self.form, self.bias
        visible = None if form.mask is None else self.expanded(form.mask, torch.bool)
        if form.sink is None and bias is None:
            return visible
        added = torch.zeros(1, 1, 1, 1, dtype=self.compute, device=self.device)
        if bias is not None:
            added = self.expanded(bias, self.compute)
        if visible is not None:
            added = torch.where(visible, added, float("-inf"))
        return added if form.sink is None else self._with_sink(added)

    def _with_sink(self, added: Tensor) -> Tensor:
        assert self.form.sink is not None
        logit = self.expanded(self.form.sink, self.compute)
        shape = [max(pair) for pair in zip(added.shape[:3], logit.shape[:3], strict=True)]
        keys = self.setting.sizes[self.form.index_dims[3]]
        return torch.cat([added.expand(*shape, keys), logit.expand(*shape, 1)], -1)


def sdpa(setting: Setting) -> Call:
    """One call, the mask and bias made beforehand."""
    operands = Linear(setting)
    form = operands.form
    causal = form.is_causal and operands.bias is form.sink is None and operands.square
    mask = None if causal else operands.additive()
    given = "is_causal" if causal else "no mask" if mask is None else "attn_mask"
    grouped = operands.grouped

    def call() -> Tensor:
        query, key, value = operands.cast()
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=causal,
            scale=operands.factor,
            enable_gqa=grouped,
        ).to(setting.dtype)

    what = f"torch SDPA, {given}"
    return Call(what, call, operands.results, lacks=form.lacks, operands=operands.read)


def group_rows(setting: Setting) -> Call:
    """The query heads that share a key head as rows of one head: its keys are read once."""
    operands = Linear(setting)
    batch, heads, count, features = operands.query.shape
    groups = operands.key.shape[1]
    if not operands.grouped:
        raise UnsupportedError("no heads share a key head")
    if count > _FEW_QUERIES:
        raise UnsupportedError(f"it has more than {_FEW_QUERIES} queries")
    rows, mask = heads // groups * count, operands.additive()
    if mask is not None:
        mask = mask.expand(batch, heads, count, -1).reshape(batch, groups, rows, -1)

    def call() -> Tensor:
        query, key, value = operands.cast()
        query = query.reshape(batch, groups, rows, features)
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=operands.factor
        )
        return found.reshape(batch, heads, count, -1).to(setting.dtype)

    what = "torch SDPA, a group's heads as rows"
    lacks = operands.form.lacks
    return Call(what, call, operands.results, lacks=lacks, operands=operands.read)
