"""Greets whom the event names, and tells which environment answered.

    martlet deploy examples/hello-python
    martlet invoke hello-python --payload '{"name": "Ada"}' --tail
"""

import logging
import os

logger = logging.getLogger()
logger.setLevel(logging.INFO)

# Work out here is done once an environment; work in the handler, once an event.
calls = 0


def lambda_handler(event, context):
    global calls
    calls += 1
    name = event.get("name", "world")
    logger.info("greeting %s", name)
    return {
        "message": f"Hello, {name}!",
        "function": context.function_name,
        "version": context.function_version,
        "memory_mb": int(context.memory_limit_in_mb),
        "runtime": os.environ["AWS_EXECUTION_ENV"],
        "calls_in_this_environment": calls,
        "request_id": context.aws_request_id,
    }
