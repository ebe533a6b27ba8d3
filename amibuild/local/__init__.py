"""EC2, SSM and S3 on this machine: moto keeps the books, real machines do the work.

Nothing outside this package may import it, except the `local` verbs and the endpoint starter:
the rest of amibuild talks boto3 to it, as it does to AWS.
"""
