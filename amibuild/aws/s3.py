"""Objects for what does not fit into a command, and for the manifests' copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amibuild.aws.errors import calling

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3:
    def __init__(self, client: S3Client, region: str) -> None:
        self._client = client
        self._region = region

    def check_bucket(self, bucket: str) -> None:
        """HeadBucket. Raises: NotFound, Denied."""
        with calling("HeadBucket", self._region, bucket):
            self._client.head_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        with calling("PutObject", self._region, f"s3://{bucket}/{key}"):
            # Encrypted as the bucket says: one that demands its own key refuses another word.
            self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def exists(self, bucket: str, key: str) -> bool:
        with calling("ListObjectsV2", self._region, f"s3://{bucket}/{key}"):
            found = self._client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        return any(item["Key"] == key for item in found.get("Contents", []))

    def delete(self, bucket: str, key: str) -> None:
        with calling("DeleteObject", self._region, f"s3://{bucket}/{key}"):
            self._client.delete_object(Bucket=bucket, Key=key)

    def presigned_get(self, bucket: str, key: str, *, valid_s: int) -> str:
        """A URL that fetches the object without credentials, for `valid_s` seconds."""
        with calling("GetObject", self._region, f"s3://{bucket}/{key}"):
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=valid_s
            )
