"""Weights of several models, chosen on labelled examples."""

import numpy as np
from scipy import special

ROUNDS = 500
SETTLED = 1e-6


def mixture_weights(logits_KNC: np.ndarray, labels_N: np.ndarray) -> tuple[float, ...]:
    """Weights, of sum 1, at which the models' mean probabilities make the labels likeliest.

    Expectation and maximisation from equal weights: ``w_k <- mean_n w_k p_kn / sum_j w_j p_jn``
    with ``p_kn`` the probability that model k gives the label of example n; the likelihood is
    concave in w, so that there is one best (Jordan and Jacobs 1994, "Hierarchical Mixtures of
    Experts and the EM Algorithm", with constant gates).

    Args:
      logits_KNC: of K models for N examples.
      labels_N: the right classes.

    Returns:
      K weights to four digits, as they stand in an objective's text.
    """
    log_probs = special.log_softmax(np.asarray(logits_KNC, np.float64), axis=-1)
    p_KN = np.exp(log_probs[:, np.arange(len(labels_N)), labels_N])
    p_KN = np.maximum(p_KN, np.finfo(np.float64).tiny)
    weights_K = np.full(len(p_KN), 1 / len(p_KN))
    for _ in range(ROUNDS):
        joint_KN = weights_K[:, None] * p_KN
        new_K = (joint_KN / joint_KN.sum(axis=0, keepdims=True)).mean(axis=1)
        moved = float(np.abs(new_K - weights_K).max())
        weights_K = new_K
        if moved < SETTLED:
            break
    return tuple(float(f"{weight:.4f}") for weight in weights_K)
