"""The scripts of experiments, as modules."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "causal_lm": "CausalLM",
    "compression": "Compression",
    "derrd_citeulike": "Derrd",
    "federated": "Federated",
    "pretraining_zh": "PretrainingZh",
    "stanton2021_fidelity": "Fidelity",
    "students": "Students",
    "recommendation": "Recommendation",
    "recommendation_anchor": "Anchor",
    "recommendation_continual": "Continual",
    "search_relevance": "SearchRelevance",
    "teachers": "Teachers",
}
"""Experiment with flags of its own -> their class."""


def module_at(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
