#!/usr/bin/env bash
# An afternoon with the AWS CLI, with nothing set but what `amibuild local up` prints.
set -euo pipefail
# Before 2.13 it does not read AWS_ENDPOINT_URL.
mkdir -p bin
# shellcheck disable=SC2016  # expanded when it is called
printf '#!/bin/sh\nexec /usr/bin/aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"\n' >bin/aws
chmod +x bin/aws
PATH=$PWD/bin:$PATH
export PS4='$ '
set -x

image=$(aws ssm get-parameter --name /aws/service/debian/release/13/latest/amd64 \
    --query Parameter.Value --output text)
aws ec2 describe-images --image-ids "$image" --query 'Images[0].[Name,State,OwnerId]' --output text

aws ec2 create-key-pair --key-name cli --key-type ed25519 --query KeyMaterial --output text >cli.pem
chmod 600 cli.pem
printf '#!/bin/sh\necho from-user-data >/etc/user-data-was-here\n' >user-data.sh
instance=$(aws ec2 run-instances --image-id "$image" --instance-type c7i.large --key-name cli \
    --user-data file://user-data.sh --query 'Instances[0].InstanceId' --output text \
    --tag-specifications 'ResourceType=instance,Tags=[{Key=Name,Value=cli}]')
aws ec2 wait instance-running --instance-ids "$instance"
aws ec2 wait instance-status-ok --instance-ids "$instance"
aws ec2 describe-instances --filters Name=tag:Name,Values=cli \
    Name=instance-state-name,Values=running \
    --query 'Reservations[].Instances[].[InstanceId,KeyName,ImageId]' --output text
address=$(aws ec2 describe-instances --instance-ids "$instance" \
    --query 'Reservations[0].Instances[0].PublicIpAddress' --output text)
ssh -i cli.pem -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
    "admin@$address" 'sudo cloud-init status --wait >&2; cat /etc/user-data-was-here'

command=$(aws ssm send-command --instance-ids "$instance" --document-name AWS-RunShellScript \
    --parameters 'commands=["echo from-run-command | tee /etc/run-command-was-here"]' \
    --query Command.CommandId --output text)
aws ssm wait command-executed --command-id "$command" --instance-id "$instance"
aws ssm get-command-invocation --command-id "$command" --instance-id "$instance" \
    --query '[Status,ResponseCode,StandardOutputContent]' --output text

made=$(aws ec2 create-image --instance-id "$instance" --name "$IMAGE_NAME" \
    --query ImageId --output text)
aws ec2 wait image-available --image-ids "$made"
snapshot=$(aws ec2 describe-images --image-ids "$made" \
    --query 'Images[0].BlockDeviceMappings[0].Ebs.SnapshotId' --output text)
aws ec2 describe-snapshots --snapshot-ids "$snapshot" --query 'Snapshots[0].[State,VolumeSize]' \
    --output text
aws ec2 describe-volumes --filters "Name=attachment.instance-id,Values=$instance" \
    --query 'Volumes[].[State,Size,VolumeType]' --output text

aws s3 mb s3://cli-bucket
head -c 20000000 /dev/urandom >up
aws s3 cp up s3://cli-bucket/folder/up --no-progress
aws s3 cp s3://cli-bucket/folder/up down --no-progress
cmp up down
aws s3 ls s3://cli-bucket/folder/

aws ec2 terminate-instances --instance-ids "$instance" \
    --query 'TerminatingInstances[].CurrentState.Name' --output text
aws ec2 wait instance-terminated --instance-ids "$instance"
aws ec2 delete-key-pair --key-name cli
aws ec2 deregister-image --image-id "$made"
aws ec2 delete-snapshot --snapshot-id "$snapshot"
aws s3 rb s3://cli-bucket --force
