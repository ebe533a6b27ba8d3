#!/usr/bin/env bash
# A life under Terraform: made, found unchanged, a tag changed in place, destroyed.
set -euo pipefail
export CHECKPOINT_DISABLE=1 TF_CLI_ARGS=-no-color PS4='$ '
set -x
terraform init
terraform apply -auto-approve
terraform plan -detailed-exitcode
instance=$(terraform output -raw instance)
amibuild local shell "$instance" -- cloud-init status --wait
amibuild local shell "$instance" -- cat /etc/terraform-was-here
terraform apply -auto-approve -var role=second
test "$instance" = "$(terraform output -raw instance)"
terraform plan -detailed-exitcode -var role=second
terraform destroy -auto-approve -var role=second
