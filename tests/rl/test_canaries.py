"""The canaries against autograd and brute force."""

import math

import pytest
import torch

from coderl.rl.canaries import gradient_norms, kl_to_reference
from coderl.training.losses import ActorExample

GAIN = ActorExample((10, 11), (20, 21, 2), (0.5, 0.5, 2.0))
LOSS = ActorExample((10,), (22, 2), (-1.0, -0.5))
IDLE = ActorExample((10,), (23, 2), (0.0, 0.0))


def gradient_norm_by_hand(model, sample):
    """|grad of -mean_t rho_t log p(w_t)| of one sample, by `backward`."""
    model.zero_grad()
    log_probs = model.log_probs(model.collate([sample.prompt], [sample.program]))[0]
    (-(log_probs * torch.tensor(sample.token_returns)).mean()).backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None))
    model.zero_grad()
    return norm


def test_gradient_norms_are_told_apart_by_the_sign_of_the_return(tiny):
    model = tiny()
    found = gradient_norms(model, [GAIN, IDLE, LOSS])
    assert found["grad_norm_positive"] == pytest.approx(gradient_norm_by_hand(model, GAIN), rel=1e-4)
    assert found["grad_norm_negative"] == pytest.approx(gradient_norm_by_hand(model, LOSS), rel=1e-4)
    assert gradient_norms(model, [IDLE]) == {"grad_norm_positive": 0.0, "grad_norm_negative": 0.0}


def test_measuring_leaves_no_trace(tiny):
    model = tiny().train()
    gradient_norms(model, [GAIN, LOSS])
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_kl_by_brute_force(tiny):
    """sum_v p(v) log(p(v) / r(v)) at each prefix, mean over tokens, one prefix at a time."""
    model, reference = tiny(), tiny(seed=5)
    total = 0.0
    for t in range(3):
        prefix = [*GAIN.program[:t], 99]
        batch = model.collate([GAIN.prompt], [prefix])
        ours, theirs = (m.read(batch, with_logits=True).logits[0, t].softmax(-1).tolist() for m in (model, reference))
        total += sum(p * math.log(p / r) for p, r in zip(ours, theirs, strict=True))
    assert kl_to_reference(model, reference, [GAIN]) == pytest.approx(total / 3, rel=1e-4)
    assert kl_to_reference(model, tiny(), [GAIN, LOSS]) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(kl_to_reference(model, reference, []))
