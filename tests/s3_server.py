"""An S3 server on the loopback that holds a folder, and the surroundings in which it is found."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

BUCKET, PREFIX = "shards", "ben"
ADDRESS = f"s3://{BUCKET}/{PREFIX}"


@contextmanager
def serve_bucket(folder: Path) -> Iterator[str]:
    """The URL of a server whose bucket holds the folder's files under the prefix."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            find_at(url, patch)
            client = boto3.client("s3")
            client.create_bucket(Bucket=BUCKET)
            for path in folder.rglob("*"):
                if path.is_file():
                    client.upload_file(str(path), BUCKET, f"{PREFIX}/{path.relative_to(folder)}")
            client.close()
        yield url
    finally:
        server.stop()


def find_at(url: str, patch: pytest.MonkeyPatch) -> None:
    """Have S3's libraries look for buckets at this URL, with credentials of no one."""
    patch.setenv("AWS_ENDPOINT_URL", url)
    patch.setenv("AWS_ACCESS_KEY_ID", "any")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Those opened before look where they did.
    S3FileSystem.clear_instance_cache()
