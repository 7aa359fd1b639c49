"""A plan as text for a person to read in ten seconds: one line per question, numbers with units."""

from __future__ import annotations

from backfill_assets.failures import printable
from backfill_assets.progress.plan import Plan
from backfill_assets.progress.plan_money import Range, money_text
from backfill_assets.readable_numbers import bytes_text, seconds_text


def plan_text(plan: Plan) -> str:
    """Return the plan as lines; an unknown number says so."""
    held = f", {plan.days_held:,} of them held" if plan.days_held else ""
    lacking = f", {plan.days_lacking:,} lacking a file" if plan.days_lacking else ""
    what = (", run again" if plan.all_days else ", skipped") if plan.days_good else ""
    to_run = f"{len(plan.days_to_run):,} of {plan.days:,} to run{held}{lacking}"
    days = f"{to_run}; {plan.days_good:,} good already{what}"
    at_most = "at most " if plan.days_unlisted else ""
    lines = [
        f"{plan.start} to {plan.end}{_choice(plan)}",
        f"  days       {days}",
        f"  files      {at_most}{plan.files:,} to fetch",
        f"  download   {_known(plan, plan.expected_bytes)}",
        f"  lake       {_known(plan, plan.lake_bytes)}{_rows(plan)}",
        f"  warehouse  {_known(plan, plan.warehouse_bytes)}{_jobs(plan)}",
        f"  time       {_time(plan)}",
        *([f"  money      {_more(plan)}{money_text(plan.money)}"] if plan.money else []),
        *(f"  · {printable(note)}" for note in plan.notes),
    ]
    return "\n".join(lines)


def _choice(plan: Plan) -> str:
    parts = [", ".join(names) for names in (plan.exchanges, plan.symbols, plan.data_types) if names]
    if parts:
        return f", fetching again {' · '.join(parts)}"
    return ", fetching everything again" if plan.refresh else ""


def _known(plan: Plan, number: int | None) -> str:
    if number is None:
        return "unknown"
    return (
        f"{'more than ' if plan.files_of_unknown_size else 'about '}{bytes_text(number)}" if number else "0 B"
    )


def _more(plan: Plan) -> str:
    return "more than " if plan.files_of_unknown_size else ""


def _rows(plan: Plan) -> str:
    return f", {plan.rows:,} rows" if plan.rows else ""


def _jobs(plan: Plan) -> str:
    if not plan.loads:
        return ""
    worst = max(plan.loads, key=lambda table: table.used_today + table.jobs.high)
    left = max(0, worst.limit - worst.used_today)
    jobs = _range(worst.jobs)
    return f"; {jobs} load jobs per table ({worst.table} most), {left:,} of {worst.limit:,} left today"


def _range(jobs: Range) -> str:
    return f"{jobs.low:,.0f}" if jobs.low == jobs.high else f"{jobs.low:,.0f} to {jobs.high:,.0f}"


def _time(plan: Plan) -> str:
    if plan.seconds is None:
        return "unknown"
    low, high = seconds_text(plan.seconds.low), seconds_text(plan.seconds.high)
    if not plan.days_to_run:
        return "nothing to do"
    at_once = "all runs at once" if plan.runs_at_once is None else f"{plan.runs_at_once} at once"
    return f"{low} ({at_once})" if low == high else f"{low} to {high} ({at_once})"
