terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

# All that it needs is in the environment that `amibuild local up` prints.
provider "aws" {}

variable "image_name" {
  type = string
}

variable "role" {
  type    = string
  default = "first"
}

variable "public_key" {
  type = string
}

data "aws_ami" "own" {
  most_recent = true
  owners      = ["self"]

  filter {
    name   = "name"
    values = ["${var.image_name}*"]
  }

  filter {
    name   = "tag:made-by"
    values = ["boto3"]
  }
}

data "aws_ssm_parameter" "debian" {
  name = "/aws/service/debian/release/13/latest/amd64"
}

resource "aws_key_pair" "admin" {
  key_name   = "terraform"
  public_key = var.public_key
}

resource "aws_security_group" "game" {
  name        = "terraform"
  description = "A game and nothing else"

  ingress {
    description = "game"
    from_port   = 30000
    to_port     = 30000
    protocol    = "udp"
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }

  tags = { Name = "game" }
}

resource "aws_ssm_parameter" "note" {
  name  = "/terraform/note"
  type  = "String"
  value = "hello"
}

resource "aws_ssm_parameter" "channel" {
  name      = "/terraform/channel/ami-id"
  type      = "String"
  data_type = "aws:ec2:image"
  value     = data.aws_ami.own.id
}

data "aws_ssm_parameter" "channel" {
  name = aws_ssm_parameter.channel.name
}

resource "aws_instance" "game" {
  ami                    = data.aws_ami.own.id
  instance_type          = "c7i.large"
  key_name               = aws_key_pair.admin.key_name
  vpc_security_group_ids = [aws_security_group.game.id]

  user_data = <<-EOT
    #!/bin/sh
    echo from-terraform >/etc/terraform-was-here
  EOT

  root_block_device {
    volume_size = 9
    volume_type = "gp3"
    encrypted   = true
    tags        = { Name = "root" }
  }

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  tags = { Name = "game", role = var.role }
}

output "instance" {
  value = aws_instance.game.id
}

output "image" {
  value = data.aws_ami.own.id
}

output "channel" {
  value = nonsensitive(data.aws_ssm_parameter.channel.value)
}

output "debian" {
  value = nonsensitive(data.aws_ssm_parameter.debian.value)
}
