# Written by `amibuild terraform`, which replaces this file: put changes of yours elsewhere.
# `terraform test` in this module's folder runs it, without an account.

mock_provider "aws" {
  mock_data "aws_ssm_parameter" {
    defaults = {
      insecure_value = "ami-0c0ffee0c0ffee001"
    }
  }
}

run "a_proven_image_is_taken" {
  command = plan

  override_data {
    target = data.aws_ami.image
    values = {
      id = jsondecode(file("../../amibuild.auto.tfvars.json")).amibuild_ami_id
      tags = {
        "amibuild:image"    = jsondecode(file("../../amibuild.auto.tfvars.json")).amibuild_image
        "amibuild:digest"   = jsondecode(file("../../amibuild.auto.tfvars.json")).amibuild_digest
        "amibuild:verified" = "passed"
      }
    }
  }
}
