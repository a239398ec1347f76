"""The tuning harness on a small file of LoCoMo's shape, its figures and its fit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.retrieval_tuning import main
from benchmarks.retrieval_tuning_figures import Scored, figures, ndcg
from benchmarks.retrieval_tuning_fit import Example, fit


def test_figures_count_what_is_within_k() -> None:
    rows = [Scored("a", "x", (0, 7), (0.5, 1.0)), Scored("a", "x", (30,), (0.0, 0.0))]
    found = figures(rows)
    assert found.fractional == pytest.approx((0.25, 0.5, 0.5, 1.0))
    assert found.any == pytest.approx((0.5, 0.5, 0.5, 1.0))
    assert found.all == pytest.approx((0.0, 0.5, 0.5, 1.0))
    assert found.filled == pytest.approx((0.25, 0.5))


def test_ndcg_is_one_for_the_best_order() -> None:
    assert ndcg((0, 1), 5) == pytest.approx(1.0)
    assert ndcg((1,), 5) == pytest.approx(1 / np.log2(3))
    assert ndcg((9,), 5) == 0.0


def test_the_fit_finds_the_weights_that_drew_the_evidence() -> None:
    generator = np.random.default_rng(3)
    true = np.array([1.5, -1.0, 0.0])
    examples = []
    for _ in range(3000):
        features = generator.normal(size=(20, 3))
        chances = np.exp(features @ true)
        examples.append(Example("a", features, generator.choice(20, size=1, p=chances / chances.sum())))
    assert fit(examples) == pytest.approx(true, abs=0.1)


def test_the_harness_reads_asks_and_prints(tmp_path: Path) -> None:
    def conversation(name: str, thing: str) -> dict[str, object]:
        return {
            "sample_id": name,
            "conversation": {
                "speaker_a": "Ada",
                "speaker_b": "Ben",
                "session_1_date_time": "1:56 pm on 8 May, 2023",
                "session_1": [
                    {"speaker": "Ada", "dia_id": "D1:1", "text": f"What did you do with the {thing}?"},
                    {"speaker": "Ben", "dia_id": "D1:2", "text": f"I sold my {thing} at the market."},
                    {"speaker": "Ada", "dia_id": "D1:3", "text": "Well done!"},
                ],
                "session_2_date_time": "9:05 am on 2 June, 2023",
                "session_2": [{"speaker": "Ben", "dia_id": "D2:1", "text": "My sister paints copper kettles."}],
            },
            "qa": [
                {"question": f"Where did Ben sell the {thing}?", "answer": "", "evidence": ["D1:2"], "category": 4},
                {"question": "Who paints kettles?", "answer": "", "evidence": ["D2:1"], "category": 1},
            ],
        }

    path = tmp_path / "chats.json"
    path.write_bytes(msgspec.json.encode([conversation("one", "lantern"), conversation("two", "violin")]))
    result = CliRunner().invoke(main, [str(path), "--fit", "--ablate", "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    assert "all, raw labels" in result.output
    assert "without coverage" in result.output
    again = CliRunner().invoke(main, [str(path), "--fit", "--ablate", "--cache", str(tmp_path / "cache")])
    assert again.output == result.output
