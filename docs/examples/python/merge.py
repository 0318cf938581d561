"""Merges a chat vector into a model by a chatvec service, and waits for it.

    python merge.py --cp DIR --chat DIR --base DIR --out DIR [--lambda 1.0]

Exits with 0 if the checkpoint is published, 1 if the job failed or was
cancelled, 2 if the request was refused.
"""

import argparse
import sys

from chatvec.v1 import types_pb2 as types
from chatvec_jobs import JobClient, Refused


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coordinator", default="127.0.0.1:7070", metavar="HOST:PORT")
    parser.add_argument("--cp", required=True, help="the checkpoint that is added to")
    parser.add_argument("--chat", required=True, help="the chat-tuned checkpoint")
    parser.add_argument("--base", required=True, help="what chat was tuned from")
    parser.add_argument("--lambda", dest="weight", type=float, default=1.0)
    parser.add_argument("--out", required=True, help="where the result is published")
    parser.add_argument("--request-id", help="the name of this request")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    return parser.parse_args()


def show(job):
    """Prints how far a job is, on one line."""
    progress = job.progress
    line = f"{job.job_id} {types.JobState.Name(job.state).removeprefix('JOB_STATE_')}"
    if progress.bytes_total:
        line += f" {100 * progress.bytes_done // progress.bytes_total}%"
    if progress.bytes_per_second:
        line += f" {progress.bytes_per_second / 1e6:.1f} MB/s"
    if progress.HasField("seconds_left"):
        line += f" {progress.seconds_left:.0f} s left"
    for condition in job.conditions:
        line += f" {types.JobCondition.Name(condition).removeprefix('JOB_CONDITION_')}"
    print(line, flush=True)


def main():
    args = arguments()
    recipe = types.Recipe(
        cp=args.cp,
        # λ is called `weight` here: `lambda` is a keyword in Python.
        vectors=[types.Vector(chat=args.chat, base=args.base, weight=args.weight)],
        output=types.Output(url=args.out),
    )
    labels = dict(label.split("=", 1) for label in args.label)
    client = JobClient(args.coordinator)
    try:
        job = client.submit(recipe, args.request_id, labels)
        for job in client.watch(job.job_id):
            show(job)
    except Refused as refused:
        print(f"refused: {refused.reason}: {refused.message}", file=sys.stderr)
        for field, description in refused.violations:
            print(f"  {field}: {description}", file=sys.stderr)
        return 2
    if job.state == types.JOB_STATE_SUCCEEDED:
        return 0
    for problem in job.error.problems:
        print(f"{problem.subject}: {problem.message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
