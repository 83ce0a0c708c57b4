"""What released code computes, told anew in numpy float64: oracles for ``as_released``.

Each function is named after the repository whose file its docstring names, and gives what that
file's function gives: a scalar for a batch of rows unless it says otherwise. Nothing is masked, as
nothing is there.
"""

import numpy as np


def softmax(logits, axis=-1):
    powers = np.exp(logits - np.max(logits, axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def log_softmax(logits, axis=-1):
    above = logits - np.max(logits, axis=axis, keepdims=True)
    return above - np.log(np.exp(above).sum(axis=axis, keepdims=True))


def _kl_div(log_q, p):
    """Pointwise ``torch.nn.functional.kl_div``: p (log p - log_q), 0 where p is 0."""
    there = p > 0
    values = np.zeros_like(p)
    values[there] = p[there] * (np.log(p[there]) - log_q[there])
    return values


def _trl_jsd(student, teacher, log_mixture, beta, temperature):
    p_s, p_t = softmax(student / temperature), softmax(teacher / temperature)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_m = log_mixture(p_s, p_t)
    values = beta * _kl_div(log_m, p_t) + (1 - beta) * _kl_div(log_m, p_s)
    return values.sum(axis=-1)


def trl_0_11_0(student, teacher, beta, temperature=1.0):
    """huggingface/trl trl/trainer/gkd_trainer.py, v0.11.0 to v0.11.2; [..., C] -> [...]."""

    def log_mixture(p_s, p_t):
        return beta * np.log(p_s) + (1 - beta) * np.log(p_t)

    return _trl_jsd(student, teacher, log_mixture, beta, temperature)


def trl_0_11_3(student, teacher, beta, temperature=1.0):
    """huggingface/trl trl/trainer/gkd_trainer.py, v0.11.3 to v0.15.2; [..., C] -> [...]."""

    def log_mixture(p_s, p_t):
        return np.log(beta * p_s + (1 - beta) * p_t)

    return _trl_jsd(student, teacher, log_mixture, beta, temperature)


def trl_0_16_0(student, teacher, beta, temperature=1.0):
    """huggingface/trl trl/trainer/gkd_trainer.py, from v0.16.0 on; [..., C] -> [...]."""

    def log_mixture(p_s, p_t):
        return np.log((1 - beta) * p_s + beta * p_t)

    return _trl_jsd(student, teacher, log_mixture, beta, temperature)


def tinybert_soft_cross_entropy(student, teacher, temperature=1.0):
    """huawei-noah/Pretrained-Language-Model TinyBERT/task_distill.py; a mean over B and C."""
    targets, log_s = softmax(teacher / temperature), log_softmax(student / temperature)
    return np.mean(-targets * log_s)


def tinybert_attention(student, teacher, mask):
    """huawei-noah/Pretrained-Language-Model TinyBERT/task_distill.py: one layer's attention loss.

    Scores [B, H, T, T] come with -10000 at masked keys, which the code turns into 0 on both sides.
    """
    hidden = np.where(mask, 0, -10000.0)[:, None, None, :]
    sides = [np.where(x + hidden <= -1e2, 0, x + hidden) for x in (student, teacher)]
    return np.mean((sides[0] - sides[1]) ** 2)


def distilbert_cosine(student, teacher, mask):
    """huggingface/transformers examples/research_projects/distillation/distiller.py: loss_cos.

    Hidden states [B, T, D] of all layers; it reads the last ones.
    """
    s, t = student[-1][mask], teacher[-1][mask]
    norms = np.linalg.norm(s, axis=-1) * np.linalg.norm(t, axis=-1)
    return np.mean(1 - (s * t).sum(axis=-1) / norms)


def bert_adam_first_update(gradients, b1=0.9, b2=0.999, epsilon=1e-6, max_norm=1.0):
    """huawei-noah/Pretrained-Language-Model TinyBERT/transformer/optimization.py, BertAdam.

    What the first step takes off each parameter, in units of the learning rate, without decay.
    """
    updates = []
    for gradient in gradients:
        clipped = gradient * min(1.0, max_norm / (np.linalg.norm(gradient) + 1e-6))
        first, second = (1 - b1) * clipped, (1 - b2) * clipped**2
        updates.append(first / (np.sqrt(second) + epsilon))
    return updates


def image_classification_sota_dist(student, teacher, beta=1.0, gamma=1.0, tau=1.0):
    """hunto/image_classification_sota lib/models/losses/dist_kd.py, which hunto/DIST_KD uses."""
    p_s, p_t = softmax(student / tau), softmax(teacher / tau)

    def relation(rows_s, rows_t):
        total = 0.0
        for a, b in zip(rows_s, rows_t, strict=True):
            a, b = a - a.mean(), b - b.mean()
            total += (a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8)
        return tau**2 * (1 - total / len(rows_s))

    return beta * relation(p_s, p_t) + gamma * relation(p_s.T, p_t.T)


def logit_standardization_normalize(logits):
    """sunshangquan/logit-standardization-KD mdistiller/distillers/KD.py; [B, C] -> [B, C]."""
    centred = logits - logits.mean(axis=-1, keepdims=True)
    return centred / (1e-7 + logits.std(axis=-1, keepdims=True, ddof=1))


def smooth_l1(difference):
    size = np.abs(difference)
    return np.where(size < 1, size**2 / 2, size - 0.5)


def rkd_pdist(rows):
    """lenscloth/RKD metric/utils.py: [B, D] -> [B, B]."""
    square = (rows**2).sum(axis=1)
    inner = rows @ rows.T
    distances = np.sqrt(np.maximum(square[:, None] + square[None, :] - 2 * inner, 1e-12))
    np.fill_diagonal(distances, 0)
    return distances


def rkd_distance(student, teacher):
    """lenscloth/RKD metric/loss.py, RkdDistance; HobbitLong/RepDistiller has the same."""
    relative = []
    for rows in (student, teacher):
        distances = rkd_pdist(rows)
        relative.append(distances / distances[distances > 0].mean())
    return smooth_l1(relative[0] - relative[1]).mean()


def rkd_angle(student, teacher):
    """lenscloth/RKD metric/loss.py, RKdAngle; HobbitLong/RepDistiller has the same."""
    cosines = []
    for rows in (student, teacher):
        sides = rows[None, :, :] - rows[:, None, :]
        sides = sides / np.maximum(np.linalg.norm(sides, axis=2, keepdims=True), 1e-12)
        cosines.append(np.stack([each @ each.T for each in sides]))
    return smooth_l1(cosines[0] - cosines[1]).mean()


def pkt(student, teacher, eps=1e-7):
    """passalis/probabilistic_kt nn/pkt.py; HobbitLong/RepDistiller has the same."""
    chances = []
    for rows in (student, teacher):
        rows = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + eps)
        kernel = (rows @ rows.T + 1) / 2
        chances.append(kernel / kernel.sum(axis=1, keepdims=True))
    p_s, p_t = chances
    return np.mean(p_t * np.log((p_t + eps) / (p_s + eps)))


def repdistiller_sp(student, teacher):
    """HobbitLong/RepDistiller distiller_zoo/SP.py."""
    rows = []
    for x in (student, teacher):
        gram = x @ x.T
        rows.append(gram / np.maximum(np.linalg.norm(gram, axis=1, keepdims=True), 1e-12))
    return np.sum((rows[1] - rows[0]) ** 2) / len(student) ** 2


def repdistiller_correlation(student, teacher):
    """HobbitLong/RepDistiller distiller_zoo/CC.py, which says it is the authors' code."""
    gaps = np.abs(student - teacher)
    return np.mean([gaps[i] @ gaps[i + 1] for i in range(len(gaps) - 1)])


def repdistiller_crd(student, candidates, temperature, data, normaliser):
    """HobbitLong/RepDistiller crd/: the half with the student as anchor (memory.py, criterion.py).

    ``candidates`` [B, K + 1, D] are what ``memory.py`` draws, the positive first, all of length 1
    as are the students; ``data`` examples are in the training set; ``normaliser`` is its Z.
    """
    negatives = candidates.shape[1] - 1
    odds = np.exp(np.einsum("bd,bkd->bk", student, candidates) / temperature) / normaliser
    noise = negatives / data
    yes = np.log(odds[:, 0] / (odds[:, 0] + noise + 1e-7))
    no = np.log(noise / (odds[:, 1:] + noise + 1e-7))
    return -(yes.sum() + no.sum()) / len(student)


def _sim(left, right):
    norms = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)[None, :]
    return left @ right.T / norms


def full_topology(student, teacher):
    """SeongKu-Kang/Topology_Distillation_KDD21 model.py, FTD.get_TD_loss."""
    return np.sum((_sim(teacher, teacher) - _sim(student, student)) ** 2)


def hierarchical_topology(student, teacher, groups, choice, fixed):
    """SeongKu-Kang/Topology_Distillation_KDD21 model.py, HTD.get_TD_loss1 ('first') and 2.

    ``fixed`` [B, D] is the student whose prototypes are taken: the code's have no gradient.
    """
    one_hot = np.stack([groups == g for g in sorted(set(groups))]).astype(np.float64)
    share = one_hot / (one_hot.sum(axis=1, keepdims=True) + 1e-10)
    prototypes_s, prototypes_t = share @ fixed, share @ teacher
    together = one_hot.T @ one_hot
    kept = _sim(teacher, teacher) * together > 0
    inside = np.sum((_sim(student, student) - _sim(teacher, teacher))[kept] ** 2)
    if choice == "first":
        outline = _sim(prototypes_s, prototypes_s) - _sim(prototypes_t, prototypes_t)
    else:
        outline = _sim(prototypes_s, student) - _sim(prototypes_t, teacher)
    return inside + np.sum(outline**2)


def group_assignment(experts, teacher, chances, gumbel, temperature):
    """SeongKu-Kang/Topology_Distillation_KDD21 model.py, HTD.get_GA_loss.

    ``experts`` [B, K, D] are what the experts make of the student, ``chances`` [B, K] their
    probabilities.
    """
    z = softmax((np.log(chances + 1e-10) + gumbel) / temperature)
    made = np.einsum("bk,bkd->bd", z, experts)
    return np.sum((teacher - made) ** 2)
