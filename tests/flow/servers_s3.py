"""S3 servers as processes of their own, and boto3 as the second client that looks at what is there."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest

from tests.flow.servers import Relay, free_port, wait_for

BUCKET = "rescue"
#: What the library would read: cleared, so that a developer's own settings reach no test.
VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
    "AWS_DEFAULT_REGION", "AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE",
    "AWS_SKIP_SIGNATURE", "AWS_ALLOW_HTTP", "REQUESTS_CA_BUNDLE",
)  # fmt: skip


class S3Server:
    """A process that serves S3.

    Attributes:
        port: where it listens. key, secret: what may use it.
    """

    def __init__(self, words: list[str], port: int, *, environment: dict[str, str] | None = None) -> None:
        self.port = port
        self.key, self.secret = "S3RVER", "S3RVER"
        self._words = words
        self._environment = {**os.environ, **(environment or {})}
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._words, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self.port, self._process)

    def kill(self) -> None:
        """As a power cut does: without a goodbye."""
        self._process.kill()
        self._process.wait()

    def client(self, service: str = "s3") -> Any:
        """Another implementation's client."""
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def address(self, folder: str, port: int = 0) -> str:
        return f"s3+http://127.0.0.1:{port or self.port}/{BUCKET}/{folder}"

    def names(self, folder: str) -> list[str]:
        """Every object below a folder."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{folder}/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def uploads(self, folder: str) -> list[str]:
        """Uploads below a folder that were begun and neither completed nor aborted."""
        found = self.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        return [entry["Key"] for entry in found if entry["Key"].startswith(f"{folder}/")]


@contextlib.contextmanager
def moto() -> Iterator[S3Server]:
    """moto's server, with one user; from then on signatures are checked."""
    port = free_port()
    # What it lets through unsigned makes the user: create it, its key, its policy.
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = S3Server(words, port, environment={"INITIAL_NO_AUTH_ACTION_COUNT": "3"})
    try:
        iam = server.client("iam")
        iam.create_user(UserName="liferaft")
        key = iam.create_access_key(UserName="liferaft")["AccessKey"]
        statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName="liferaft", PolicyName="all", PolicyDocument=policy)
        server.key, server.secret = key["AccessKeyId"], key["SecretAccessKey"]
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def s3rver(place: Path) -> Iterator[S3Server]:
    """s3rver (npm), which keeps its objects on the disk; named by the variable S3RVER, skipped without it."""
    program = os.environ.get("S3RVER")
    if not program:
        pytest.skip("needs S3RVER=…/node_modules/.bin/s3rver (npm install s3rver), a second opinion beside moto")
    port = free_port()
    words = [program, "-d", str(place), "-a", "127.0.0.1", "-p", str(port), "--no-vhost-buckets"]
    server = S3Server([*words, "--configure-bucket", BUCKET], port)
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def relay(server: S3Server) -> Iterator[Relay]:
    """A wire to the server that can be cut."""
    wire = Relay(server.port)
    try:
        yield wire
    finally:
        wire.close()
