"""Adam with beta_1 = 0, which needs no first moment: it is the gradient."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam


class AdamWithoutMomentum(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) at beta_1 = 0: bit-identical steps to `torch.optim.Adam(betas=(0.0, beta_2))`.

    m_t = 0 m_{t-1} + (1 - 0) g_t = g_t, so the gradient itself is passed to torch's fused kernel as the first moment,
    which saves one copy of every trained parameter. Supports torch's loss scaling.
    """

    _step_supports_amp_scaling = True  # GradScaler then need not synchronise to check for overflow

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, beta_2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__(parameters, {"lr": lr, "beta_2": beta_2, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step for all parameters that have gradients."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            states = [self._state_of(p) for p in parameters]
            adam(
                parameters,
                gradients,
                gradients,  # the first moments
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=0.0,
                beta2=group["beta_2"],
                lr=group["lr"],
                weight_decay=0.0,
                eps=group["eps"],
                maximize=False,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
            )

    def _state_of(self, p: nn.Parameter) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), device=p.device)
            state["exp_avg_sq"] = torch.zeros_like(p)
        return state
