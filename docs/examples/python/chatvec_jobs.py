"""Runs chatvec jobs from Python, with nothing but gRPC's own packages.

`JobClient` is what an automation needs: it submits so that a repeat does no
harm, follows a job over broken connections, and turns refusals into exceptions
that tell the reason. The stubs are generated from chatvec's `proto` folder by
`generate.sh`.
"""

import random
import time
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chatvec.v1 import merge_service_pb2 as api
from chatvec.v1 import merge_service_pb2_grpc as services
from chatvec.v1 import types_pb2 as types

# Seconds that one call may take.
DEADLINE = 10
# Tries of a call that may pass, and of taking up a stream.
TRIES = 8
# Codes after which the same call may succeed.
PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
ENDED = {
    types.JOB_STATE_SUCCEEDED,
    types.JOB_STATE_FAILED,
    types.JOB_STATE_CANCELLED,
}


class Refused(Exception):
    """The coordinator said no, and why."""

    def __init__(self, error):
        self.code = error.code()
        self.message = error.details()
        # Why, in one word that programs may compare, such as REQUEST_ID_REUSED.
        self.reason = None
        # What it is about, such as {"job_id": "..."}.
        self.metadata = {}
        # What is wrong with the request: pairs of field and description.
        self.violations = []
        # Seconds after which a repeat makes sense, where it does.
        self.retry_after = None
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == "chatvec":
                self.reason = info.reason
                self.metadata = dict(info.metadata)
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                self.violations = [
                    (violation.field, violation.description)
                    for violation in bad.field_violations
                ]
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        super().__init__(f"{self.reason or self.code.name}: {self.message}")


class JobClient:
    """Calls a coordinator, such as "127.0.0.1:7070"."""

    def __init__(self, address):
        self.service = services.MergeServiceStub(grpc.insecure_channel(address))

    def submit(self, recipe, request_id=None, labels=None, **more):
        """Submits a job and returns it.

        Give a `request_id` of your own, such as the name of a pipeline's run: a
        repeat with the same one, today or tomorrow, returns the first job.
        """
        request = api.CreateJobRequest(
            request_id=request_id or str(uuid.uuid4()),
            recipe=recipe,
            labels=labels or {},
            **more,
        )
        return self._call(self.service.CreateJob, request).job

    def get(self, job_id):
        """Returns a job as it stands."""
        return self._call(self.service.GetJob, api.GetJobRequest(job_id=job_id)).job

    def jobs(self, **filters):
        """Yields jobs, the newest first, page by page."""
        token = ""
        while True:
            request = api.ListJobsRequest(page_token=token, **filters)
            page = self._call(self.service.ListJobs, request)
            yield from page.jobs
            token = page.next_page_token
            if not token:
                return

    def watch(self, job_id):
        """Yields the job at each change, the last time when it has ended.

        A stream ends when the connection breaks, the coordinator restarts, or
        some minutes have passed. It is taken up after the last revision that
        was seen, so nothing is told twice and no change is missed.
        """
        revision, failures = 0, 0
        while True:
            request = api.WatchJobRequest(job_id=job_id, after_revision=revision)
            try:
                for change in self.service.WatchJob(request):
                    failures = 0
                    revision = change.job.revision
                    yield change.job
                    if change.job.state in ENDED:
                        return
            except grpc.RpcError as error:
                failures += 1
                if error.code() not in PASSING or failures >= TRIES:
                    raise Refused(error) from None
            pause(failures)

    def _call(self, method, request):
        """Makes a call, again while the coordinator cannot be reached.

        Every call here may be repeated: CreateJob because its request has a name.
        """
        failures = 0
        while True:
            try:
                return method(request, timeout=DEADLINE)
            except grpc.RpcError as error:
                failures += 1
                if error.code() not in PASSING or failures >= TRIES:
                    raise Refused(error) from None
            pause(failures)


def pause(failures):
    """Waits a random time under a ceiling that doubles: many clients must not
    come back together."""
    time.sleep(random.uniform(0, min(5, 0.1 * 2**failures)))
