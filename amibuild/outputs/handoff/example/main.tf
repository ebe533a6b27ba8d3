# Yours to change: `amibuild terraform` writes this folder only where there is none.

module "amibuild" {
  source  = "../../modules/amibuild"
  channel = var.channel
}

locals {
  name = module.amibuild.image
  zone = coalesce(var.zone, "${module.amibuild.region}a")

  # What belongs in user-data is what differs from machine to machine. All else is in the image.
  user_data = templatefile("${path.module}/user-data.yaml.tftpl", { hostname = local.name })
}

resource "aws_instance" "host" {
  ami                                  = module.amibuild.ami_id
  availability_zone                    = local.zone
  iam_instance_profile                 = aws_iam_instance_profile.host.name
  instance_initiated_shutdown_behavior = "stop" # idle-stop powers it off; EC2 must not end it then
  instance_type                        = var.instance_type
  user_data                            = local.user_data
  user_data_replace_on_change          = true
  vpc_security_group_ids               = [aws_security_group.host.id]

  metadata_options {
    http_endpoint          = "enabled"
    http_tokens            = "required"
    instance_metadata_tags = "enabled" # the image finds its volumes by their tags
  }

  root_block_device {
    encrypted   = true
    volume_type = "gp3"
  }

  tags = merge(
    { Name = local.name },
    { for service, volume in aws_ebs_volume.state : "amibuild:volume:${service}" => volume.id },
  )

  lifecycle {
    precondition {
      condition     = length(base64encode(local.user_data)) <= 4096
      error_message = "The user-data is over 3 KiB. EC2 takes 16 KiB, so it may still grow, but a provisioner of the image is the place for it."
    }
  }
}

# Exactly what the image's firewall lets in. No rule for SSH: Session Manager needs no open port.
resource "aws_security_group" "host" {
  name        = local.name
  description = "The services of ${local.name}"

  tags = { Name = local.name }
}

resource "aws_vpc_security_group_ingress_rule" "service" {
  for_each = module.amibuild.ports

  security_group_id = aws_security_group.host.id
  description       = each.key
  cidr_ipv4         = "0.0.0.0/0"
  from_port         = each.value.port
  to_port           = each.value.port
  ip_protocol       = each.value.protocol

  tags = { Name = each.key }
}

resource "aws_vpc_security_group_egress_rule" "all" {
  security_group_id = aws_security_group.host.id
  description       = "Systems Manager, updates, secrets and logs"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"

  tags = { Name = "all" }
}

resource "aws_ebs_volume" "state" {
  for_each = module.amibuild.volumes

  availability_zone = local.zone
  encrypted         = true
  final_snapshot    = true # a service that is taken out of the recipe takes its volume along
  size              = each.value.size_gib
  type              = "gp3"

  tags = merge(
    { Name = "${local.name}-${each.key}" },
    each.value.backup_tag == null ? {} : { "amibuild:backup" = each.value.backup_tag },
  )
}

resource "aws_volume_attachment" "state" {
  for_each = module.amibuild.volumes

  device_name = "/dev/sd${substr("fghijklmnop", index(keys(module.amibuild.volumes), each.key), 1)}"
  instance_id = aws_instance.host.id
  volume_id   = aws_ebs_volume.state[each.key].id

  stop_instance_before_detaching = true # a mounted volume of a running machine does not come off
}
