from distill_jax.tables.bench import FIGURES, bench_markdown


def test_every_figure_has_its_share_of_the_first_row():
    teacher = dict.fromkeys([figure.key for figure in FIGURES], 2e6)
    student = {**dict.fromkeys([figure.key for figure in FIGURES], 5e5), "p50_ms": 1.2}
    rows = [
        {"name": "teacher", "runtime": "jax", **teacher},
        {"name": "a|b", "runtime": "onnx", **student},
    ]
    table = bench_markdown(rows, ["said"]).splitlines()
    assert table[0].startswith("| model | runtime | parameters, M | on disk, MB |")
    assert table[2].count("(1.00)") == len(FIGURES) == 6
    assert table[3].startswith("| a\\|b | onnx | 0.50 (0.25) | 0.5 (0.25) |")
    assert "| 1.20 (6e-07) |" in table[3] and table[-1] == "said"
    rows[1]["texts_per_second"], rows[1]["p95_ms"] = 3e9, 2.6e4
    shown = bench_markdown(rows, []).splitlines()[3]
    assert "(1,500)" in shown and "(0.013)" in shown
