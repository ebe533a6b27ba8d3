# Written by `amibuild terraform`, which replaces this file: put changes of yours elsewhere.

output "ami_id" {
  description = "AMI id of the image"
  value       = data.aws_ami.image.id

  precondition {
    condition     = !var.check_tags || lookup(local.tags, "amibuild:image", "") == local.pinned.amibuild_image
    error_message = "${local.ami_id} is no image of ${local.pinned.amibuild_image}: its tag amibuild:image is \"${lookup(local.tags, "amibuild:image", "")}\"."
  }

  precondition {
    condition     = !var.check_tags || lookup(local.tags, "amibuild:verified", "") == "passed"
    error_message = "${local.ami_id} has not been proven on a fresh boot: its tag amibuild:verified is not \"passed\"."
  }

  # One that was revoked by half, too: its tag comes first.
  precondition {
    condition     = !var.check_tags || !contains(keys(local.tags), "amibuild:revoked")
    error_message = "${local.ami_id} was revoked: ${lookup(local.tags, "amibuild:revoked", "")}"
  }
}

output "ami_name" {
  description = "AMI name: image name and version"
  value       = data.aws_ami.image.name
}

output "image" {
  description = "Name of the image, without a version"
  value       = local.pinned.amibuild_image
}

output "region" {
  description = "Region that the pinned image is in"
  value       = local.pinned.amibuild_region
}

output "services" {
  description = "All that is told of each service, by name"
  value       = local.pinned.amibuild_services
}

output "ports" {
  description = "The openings of the image's firewall, by service, name of the port and protocol"
  value = merge([for service, facts in local.pinned.amibuild_services : {
    for port in facts.ports : "${service}-${port.name}-${port.protocol}" => {
      service  = service
      port     = port.port
      protocol = port.protocol
    } if port.public
  }]...)
}

output "users" {
  description = "Linux user of each service"
  value       = { for service, facts in local.pinned.amibuild_services : service => facts.user }
}

output "volumes" {
  description = "Services that keep their state on a volume: its size, where it is mounted, the tag for its backup"
  value = { for service, facts in local.pinned.amibuild_services : service => {
    size_gib   = facts.volume.size_gib
    mounted_at = facts.state_directory
    backup_tag = try(facts.backup.tag, null)
  } if facts.volume != null }
}

output "secrets" {
  description = "Names of the secrets that the services fetch at boot, by the store that has them"
  value = { for store in ["secretsmanager", "ssm"] : store => distinct([
    for secret in flatten([for facts in values(local.pinned.amibuild_services) : facts.secrets]) :
    secret.id if secret.store == store
  ]) }
}

output "log_groups" {
  description = "CloudWatch log group of each service"
  value       = { for service, facts in local.pinned.amibuild_services : service => facts.log_group }
}
