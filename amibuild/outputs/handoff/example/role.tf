# Yours to change: `amibuild terraform` writes this folder only where there is none.

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

resource "aws_iam_role" "host" {
  name               = local.name
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_instance_profile" "host" {
  name = local.name
  role = aws_iam_role.host.name
}

# Session Manager and Run Command, in place of SSH.
resource "aws_iam_role_policy_attachment" "ssm" {
  role       = aws_iam_role.host.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

locals {
  arn = "arn:${data.aws_partition.current.partition}:%s:${module.amibuild.region}:${data.aws_caller_identity.current.account_id}:%s"

  # Secrets Manager adds six characters of its own to a name.
  readable = {
    "secretsmanager:GetSecretValue" = [for id in module.amibuild.secrets.secretsmanager : format(local.arn, "secretsmanager", "secret:${id}-??????")]
    "ssm:GetParameter"              = [for id in module.amibuild.secrets.ssm : format(local.arn, "ssm", "parameter/${trimprefix(id, "/")}")]
  }
}

data "aws_iam_policy_document" "services" {
  dynamic "statement" {
    for_each = { for action, arns in local.readable : action => arns if length(arns) > 0 }

    content {
      actions   = [statement.key]
      resources = statement.value
    }
  }

  statement {
    actions   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents", "logs:PutRetentionPolicy"]
    resources = [format(local.arn, "logs", "log-group:/${local.name}/*")]
  }
}

resource "aws_iam_role_policy" "services" {
  name   = "services"
  role   = aws_iam_role.host.name
  policy = data.aws_iam_policy_document.services.json
}
