"""An S3 server in memory on a free port of 127.0.0.1. It prints its port as a line, and ends with its input.

Each line of its input is an order as JSON, which it answers with a line:
  {"put": [bucket, prefix, count, body]}   puts objects PREFIX00000000000000000000.json, …
  {"user": policy}                         makes a user with this policy, and from now on checks signatures and rights
"""

import json
import logging
import sys
from threading import Lock, Thread

from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.threaded_moto_server import create_backend_app
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
application = DomainDispatcherApplication(create_backend_app)
one_at_a_time = Lock()


def serve(environment, start_response):
    # Moto looks for an object and puts it in two steps.
    with one_at_a_time:
        return [b"".join(application(environment, start_response))]


def put(bucket, prefix, count, body):
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for i in range(count):
        backend.put_object(bucket, f"{prefix}{i:020d}.json", body.replace("FIRST", str(i)).replace("NEXT", str(i + 1)).encode())


def user(policy):
    backend = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_user("us-east-1", "tapeline")
    backend.put_user_policy("tapeline", "archive", json.dumps(policy))
    key = backend.create_access_key("tapeline")
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    return [key.access_key_id, key.secret_access_key]


server = make_server("127.0.0.1", 0, serve, True, request_handler=MotoRequestHandler)
Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps(server.server_address[1]), flush=True)
for line in sys.stdin:
    (name, argument), = json.loads(line).items()
    with one_at_a_time:
        answer = put(*argument) if name == "put" else user(argument)
    print(json.dumps(answer), flush=True)
