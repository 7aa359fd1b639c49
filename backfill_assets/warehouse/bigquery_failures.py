"""Failures of BigQuery, in the package's own classes and words.

The service names a reason, in the answer to a request or in a job that failed; the reason decides whether a
rerun can help (https://cloud.google.com/bigquery/docs/error-messages).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth

from backfill_assets.failures import BackfillError, PermanentFailure, TransientFailure
from backfill_assets.warehouse.protocol import LoadStopped

_TRANSIENT: Final = frozenset(
    {
        "backendError",
        "internalError",
        "jobBackendError",
        "jobInternalError",
        "jobRateLimitExceeded",
        "rateLimitExceeded",
        "resourceInUse",
        "tableUnavailable",
        "timeout",
    }
)
#: Quotas are counted by the day, so a step that waits a minute meets the same one.
_DAY_SECONDS: Final = 86_400.0
_REMEDIES: Final = {
    "accessDenied": "grant this account the roles BigQuery Data Editor and BigQuery Job User",
    "notFound": "check warehouse.project, dataset and location, and make the data set",
    "billingNotEnabled": "enable billing for the project",
    "stopped": "publish again when it may run",
    "invalid": "the files do not fit the table: compare them with its schema",
}
_DEFAULT_REMEDY: Final = "correct what the message names, then publish again"


def failed_job(what: str, job_id: str, error: Mapping[str, Any]) -> BackfillError:
    """Return the failure that a job's ``errorResult`` means."""
    reason, text = str(error.get("reason", "")), f"job {job_id}: {error.get('message', '')}"
    if reason == "stopped":
        # The job was stopped by a publisher with a newer claim, a person or the service; ``publish`` tells
        # which.
        return LoadStopped(f"{what}: {text}")
    return _by_reason(what, reason, text)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise the client's errors as the package's; ``what`` begins the message."""
    try:
        yield
    except api.GoogleAPICallError as error:
        raise _by_answer(what, error) from error
    except (api.RetryError, requests.RequestException, auth.TransportError, TimeoutError) as error:
        msg = f"{what}: BigQuery does not answer ({_line(error)}): run again when it can be reached"
        raise TransientFailure(msg) from error
    except auth.GoogleAuthError as error:
        msg = (
            f"{what}: no valid Google credentials ({_line(error)}): "
            "run 'gcloud auth application-default login' or set GOOGLE_APPLICATION_CREDENTIALS"
        )
        raise PermanentFailure(msg) from error


def _by_answer(what: str, error: api.GoogleAPICallError) -> BackfillError:
    reasons = [str(item["reason"]) for item in error.errors if isinstance(item, dict) and "reason" in item]
    text = _line(error)
    if reasons:
        return _by_reason(what, reasons[0], text)
    if isinstance(error, api.ServerError | api.TooManyRequests):
        return TransientFailure(f"{what}: {text}: run again")
    reason = {401: "accessDenied", 403: "accessDenied", 404: "notFound", 400: "invalid"}.get(
        error.code or 0, ""
    )
    return _by_reason(what, reason, text)


def _by_reason(what: str, reason: str, text: str) -> BackfillError:
    if reason == "quotaExceeded":
        msg = f"{what}: quota exceeded, waits for tomorrow: {text}"
        return TransientFailure(msg, retry_after_seconds=_DAY_SECONDS)
    if reason in _TRANSIENT:
        return TransientFailure(f"{what}: {reason}: {text}: run again")
    return PermanentFailure(
        f"{what}: {reason or 'refused'}: {text}: {_REMEDIES.get(reason, _DEFAULT_REMEDY)}"
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
