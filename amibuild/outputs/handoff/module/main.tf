# Written by `amibuild terraform`, which replaces this file: put changes of yours elsewhere.

locals {
  # Written by each bake and by `amibuild terraform`. A review and a revert can see it.
  pinned = jsondecode(file("${path.module}/../../amibuild.auto.tfvars.json"))
  ami_id = var.channel == null ? local.pinned.amibuild_ami_id : data.aws_ssm_parameter.channel[0].insecure_value
  tags   = data.aws_ami.image.tags
}

data "aws_ssm_parameter" "channel" {
  count = var.channel == null ? 0 : 1
  name  = replace(local.pinned.amibuild_channel_parameter, "{channel}", var.channel)

  lifecycle {
    precondition {
      condition     = contains(local.pinned.amibuild_channels, var.channel)
      error_message = "${var.channel} is none of the recipe's channels: ${join(", ", local.pinned.amibuild_channels)}."
    }
  }
}

# Nothing is found when the image is gone, disabled, or in another region.
data "aws_ami" "image" {
  filter {
    name   = "image-id"
    values = [local.ami_id]
  }
}

# A channel may have another image than the one whose services are in the file.
check "services" {
  assert {
    condition     = !var.check_tags || lookup(local.tags, "amibuild:digest", "") == local.pinned.amibuild_digest
    error_message = "${local.ami_id} was made from other steps than ${local.pinned.amibuild_ami_name}, whose ports, volumes and secrets these are: `amibuild terraform --image ${local.ami_id}` writes its own."
  }
}
