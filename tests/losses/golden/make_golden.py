"""Golden values of a few losses, by hand-written PyTorch: run once, its output is committed.

    pip install torch==2.13.0 && python tests/losses/golden/make_golden.py

Each entry holds inputs, options, one value an example and the gradient of their sum.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
GENERATOR = torch.Generator().manual_seed(3)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def kl(student, teacher, T):
    targets = F.softmax(teacher / T, dim=-1)
    return T * T * F.kl_div(F.log_softmax(student / T, dim=-1), targets, reduction="none").sum(-1)


def ce(student, labels, label_smoothing):
    return F.cross_entropy(student, labels, reduction="none", label_smoothing=label_smoothing)


def soft_ce(student, teacher, T):
    return T * T * F.cross_entropy(student / T, F.softmax(teacher / T, dim=-1), reduction="none")


def dkd(student, teacher, labels, T, alpha, beta):
    target = F.one_hot(labels, student.shape[-1]).bool()

    def parts(logits):
        p = F.softmax(logits / T, dim=-1)
        yes = p[target]
        others = (logits / T)[~target].reshape(len(logits), -1)
        return torch.stack([yes, 1 - yes], dim=-1), F.log_softmax(others, dim=-1)

    (binary_s, among_s), (binary_t, among_t) = parts(student), parts(teacher)
    first = F.kl_div(binary_s.log(), binary_t, reduction="none").sum(-1)
    second = F.kl_div(among_s, among_t, reduction="none", log_target=True).sum(-1)
    return T * T * (alpha * first + beta * second)


def dist(student, teacher, T, beta, gamma):
    p, q = F.softmax(student / T, dim=-1), F.softmax(teacher / T, dim=-1)

    def distance(a, b, dim):
        a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
        return 1 - F.cosine_similarity(a, b, dim=dim)

    return beta * distance(p, q, 1) + gamma * distance(p, q, 0).mean()


def bce(student, teacher, T):
    targets = torch.sigmoid(teacher / T)
    values = F.binary_cross_entropy_with_logits(student / T, targets, reduction="none")
    return T * T * values.sum(-1)


def hidden_mse(student, teacher, where):
    return torch.stack(
        [F.mse_loss(s[w], t[w]) for s, t, w in zip(student, teacher, where, strict=True)]
    )


def hidden_cosine(student, teacher, where):
    pairs = zip(student, teacher, where, strict=True)
    return torch.stack([1 - F.cosine_similarity(s[w], t[w], dim=-1).mean() for s, t, w in pairs])


def vid(student, teacher, where, alpha):
    variance = F.softplus(alpha) + 1e-5
    values = F.gaussian_nll_loss(
        student, teacher, variance.expand_as(student), reduction="none", eps=0
    )
    return torch.stack([v[w].mean() for v, w in zip(values, where, strict=True)])


def attention_kl(student, teacher, where):
    values = []
    for s, t, w in zip(student, teacher, where, strict=True):
        s, t = (F.log_softmax(x[:, w][:, :, w], dim=-1) for x in (s, t))
        values.append(F.kl_div(s, t, reduction="none", log_target=True).sum(-1).mean())
    return torch.stack(values)


def minilm_v2_part(student, teacher, where, relation_heads):
    """The relation of one of queries, keys, values."""
    scores = []
    for x in (student, teacher):
        x = x.flatten(2).unflatten(2, (relation_heads, -1)).transpose(1, 2)
        scores.append(x @ x.transpose(-1, -2) / x.shape[-1] ** 0.5)
    return attention_kl(*scores, where)


def rkd_distance(student, teacher):
    def relative(x):
        d = torch.linalg.vector_norm(x[:, None] - x[None] + 1e-300, dim=-1)
        d = d * (1 - torch.eye(len(x)))
        return d / (d.sum() / (len(x) * (len(x) - 1)))

    values = F.smooth_l1_loss(relative(student), relative(teacher), reduction="none")
    return values.sum(1) / (len(student) - 1)


def sp(student, teacher):
    rows = [F.normalize(x @ x.T, dim=1) for x in (student, teacher)]
    return F.mse_loss(*rows, reduction="none").mean(1)


def listmle(student, teacher):
    scores = student.gather(-1, teacher.argsort(dim=-1, descending=True))
    rest = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return (rest - scores).sum(-1)


def margin_mse(student, teacher):
    margins = [x[:, :1] - x[:, 1:] for x in (student, teacher)]
    return F.mse_loss(*margins, reduction="none").mean(-1)


def entries():
    """(name, function, student, other tensors by argument, options)."""
    z, t = normal(4, 6) * 2, normal(4, 6) * 2
    labels = torch.tensor([0, 3, 5, 3])
    hidden = normal(3, 5, 4), normal(3, 5, 4)
    where = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1]]).bool()
    scores = normal(3, 2, 5, 5), normal(3, 2, 5, 5)
    vectors = normal(3, 5, 2, 6), normal(3, 5, 3, 8)
    features = normal(5, 3), normal(5, 4)
    yield "kl", kl, z, {"teacher": t}, {"T": 3.0}
    yield "ce", ce, z, {"labels": labels}, {"label_smoothing": 0.1}
    yield "soft_ce", soft_ce, z, {"teacher": t}, {"T": 3.0}
    options = {"T": 2.0, "alpha": 1.0, "beta": 8.0}
    yield "dkd", dkd, z, {"teacher": t, "labels": labels}, options
    yield "dist", dist, z, {"teacher": t}, {"T": 2.0, "beta": 1.0, "gamma": 0.5}
    yield "bce", bce, z, {"teacher": t}, {"T": 2.0}
    yield "hidden_mse", hidden_mse, hidden[0], {"teacher": hidden[1], "where": where}, {}
    yield "hidden_cosine", hidden_cosine, hidden[0], {"teacher": hidden[1], "where": where}, {}
    alpha = normal(4)
    yield "vid", vid, hidden[0], {"teacher": hidden[1], "where": where, "alpha": alpha}, {}
    yield "attention_kl", attention_kl, scores[0], {"teacher": scores[1], "where": where}, {}
    arguments = {"teacher": vectors[1], "where": where}
    yield "minilm_v2", minilm_v2_part, vectors[0], arguments, {"relation_heads": 4}
    yield "rkd_distance", rkd_distance, features[0], {"teacher": features[1]}, {}
    yield "sp", sp, features[0], {"teacher": features[1]}, {}
    yield "listmle", listmle, z, {"teacher": t}, {}
    yield "margin_mse", margin_mse, z, {"teacher": t}, {}


def main():
    golden = []
    for name, function, student, tensors, options in entries():
        student = student.clone().requires_grad_()
        values = function(student, **tensors, **options)
        (gradient,) = torch.autograd.grad(values.sum(), student)
        golden.append(
            {
                "loss": name,
                "student": student.tolist(),
                "tensors": {key: tensor.tolist() for key, tensor in tensors.items()},
                "options": options,
                "values": values.tolist(),
                "gradient": gradient.tolist(),
            }
        )
    text = json.dumps({"torch": torch.__version__.partition("+")[0], "entries": golden})
    Path(__file__).with_name("golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
