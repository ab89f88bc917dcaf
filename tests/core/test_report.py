import json

import torch

from selective_sigma import Reason, Report, Settings

from .runs import IMAGE, Denoiser, detailed, short_steps, start


def test_counts_and_words():
    report = Report(steps=5, plain=5, lied=2)
    report.skip(Reason.FIRST)
    report.skip(Reason.WINDOW)
    report.skip(Reason.WINDOW)
    assert report.calls == 7
    assert report.nonfinite == 0
    assert str(report) == (
        "7 model calls for 5 (plain 5, lied 2); doses of 0 e-folds; "
        "steps without detail: 1 (mask_source change has nothing to compare with yet), 2 (outside start and end)"
    )
    report.count_finite(torch.tensor([True, False]))
    report.count_finite(torch.tensor([False]))
    assert report.nonfinite == 2
    assert str(report).endswith("2 samples with NaN or inf")
    assert json.loads(json.dumps(report.as_dict())) == {
        "steps": 5, "calls": 7, "plain": 5, "lied": 2, "e_folds": 0.0, "nonfinite": 2,
        "skipped": {"first": 1, "window": 2},
    }  # fmt: skip
    assert "none" in str(Report())


def test_a_run_s_report_is_what_the_model_saw_and_every_step_is_accounted_for():
    levels = short_steps(20)
    for chosen in (Settings(), Settings(every=1), Settings(every=4), Settings(coverage=1.0), Settings(strength=0.0)):
        model = Denoiser(IMAGE)
        _, run = detailed(model, start(IMAGE), levels, chosen, window=(float(levels[4]), 0.0))
        report, kinds = run.report, [call.kind for call in model.seen]
        assert (report.plain, report.lied) == (kinds.count("plain"), kinds.count("lied"))
        assert report.calls == len(kinds)
        assert report.steps == 20 == report.lied + sum(report.skipped.values())
        if chosen.strength:
            due = -(-15 // chosen.every) + 1
            assert report.lied == due
            every = {"every": 16 - due} if due < 16 else {}
            assert report.skipped == {"window": 4, **every}
