"""Objects for what does not fit into a command, and for the manifests' copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from boto3.exceptions import S3UploadFailedError

from amibuild.aws.errors import calling

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@contextmanager
def _transfer() -> Iterator[None]:
    """boto3 wraps the service's error into a text of its own; the error is what is wanted."""
    try:
        yield
    except S3UploadFailedError as error:
        if isinstance(error.__context__, Exception):
            raise error.__context__ from None
        raise


class S3:
    def __init__(self, client: S3Client, region: str) -> None:
        self._client = client
        self._region = region
        # Each grants access to an object for its time: what must not stay in an image.
        self.presigned: set[str] = set()

    def check_bucket(self, bucket: str) -> None:
        """HeadBucket. Raises: NotFound, Denied."""
        with calling("HeadBucket", self._region, bucket):
            self._client.head_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        with calling("PutObject", self._region, f"s3://{bucket}/{key}"):
            # Encrypted as the bucket says: one that demands its own key refuses another word.
            self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def put_file(self, bucket: str, key: str, path: Path) -> None:
        """In parts, over several connections: PutObject ends at 5 GB."""
        with calling("PutObject", self._region, f"s3://{bucket}/{key}"), _transfer():
            self._client.upload_file(str(path), bucket, key)

    def get_file(self, bucket: str, key: str, path: Path) -> None:
        with calling("GetObject", self._region, f"s3://{bucket}/{key}"):
            self._client.download_file(bucket, key, str(path))

    def exists(self, bucket: str, key: str) -> bool:
        with calling("ListObjectsV2", self._region, f"s3://{bucket}/{key}"):
            found = self._client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        return any(item["Key"] == key for item in found.get("Contents", []))

    def keys_below(self, bucket: str, prefix: str) -> set[str]:
        """Of whole objects, and of uploads that nobody ended."""
        at = f"s3://{bucket}/{prefix}"
        with calling("ListObjectsV2", self._region, at):
            whole = self._client.get_paginator("list_objects_v2")
            pages = whole.paginate(Bucket=bucket, Prefix=prefix)
            keys = {item["Key"] for page in pages for item in page.get("Contents", [])}
        with calling("ListMultipartUploads", self._region, at):
            parts = self._client.get_paginator("list_multipart_uploads")
            begun = parts.paginate(Bucket=bucket, Prefix=prefix)
            return keys | {item["Key"] for page in begun for item in page.get("Uploads", [])}

    def unfinished(self, bucket: str, key: str) -> list[str]:
        """The uploads of it that nobody ended. Their parts are no object, and cost as one does."""
        with calling("ListMultipartUploads", self._region, f"s3://{bucket}/{key}"):
            found = self._client.list_multipart_uploads(Bucket=bucket, Prefix=key)
        return [one["UploadId"] for one in found.get("Uploads", []) if one["Key"] == key]

    def abort(self, bucket: str, key: str, upload_id: str) -> None:
        with calling("AbortMultipartUpload", self._region, f"s3://{bucket}/{key}"):
            self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)

    def delete(self, bucket: str, key: str) -> None:
        with calling("DeleteObject", self._region, f"s3://{bucket}/{key}"):
            self._client.delete_object(Bucket=bucket, Key=key)

    def presigned_get(self, bucket: str, key: str, *, valid_s: int) -> str:
        """A URL that fetches the object without credentials, for `valid_s` seconds."""
        with calling("GetObject", self._region, f"s3://{bucket}/{key}"):
            url = self._client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=valid_s
            )
        self.presigned.add(url)
        return url
