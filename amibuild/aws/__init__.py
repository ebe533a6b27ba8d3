"""All of boto3 lives here. Typed facts and ids go out; botocore's errors end at this border."""
