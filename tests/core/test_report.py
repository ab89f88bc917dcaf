import json

import torch

from selective_sigma import Report


def test_counts_and_words():
    report = Report(steps=5, true=3, lied=2, held=2)
    report.skip("first")
    report.skip("schedule")
    report.skip("schedule")
    assert report.calls == 7
    assert report.nonfinite == 0
    assert str(report) == ("7 model calls for 5 (true 3, lied 2, held 2); without detail: first 1, schedule 2")
    report.count_unsound(torch.tensor([True, False]))
    report.count_unsound(torch.tensor([False]))
    assert report.nonfinite == 2
    assert str(report).endswith("2 predictions with NaN or inf left alone")
    assert json.loads(json.dumps(report.as_dict())) == {
        "steps": 5, "calls": 7, "true": 3, "lied": 2, "held": 2, "nonfinite": 2, "skipped": {"first": 1, "schedule": 2},
    }  # fmt: skip
    assert "none" in str(Report())
